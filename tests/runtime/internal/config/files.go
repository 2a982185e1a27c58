// Package config reads the command line and the configuration files that k3s
// reads, and merges them by its rules. It links nothing of Kubernetes.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"go.yaml.in/yaml/v2"
)

// DefaultFile is read when neither --config nor K3S_CONFIG_FILE names another.
const DefaultFile = "/etc/rancher/k3s/config.yaml"

// Entry is one key of the merged configuration with all its values.
type Entry struct {
	Key    string
	Values []string
}

// FilePath says which configuration file counts and whether it was asked for
// by name: the environment wins over the command line.
func FilePath(args []string) (path string, explicit bool) {
	if env := os.Getenv("K3S_CONFIG_FILE"); env != "" {
		return env, true
	}
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		if name != "--config" && name != "-config" && name != "-c" {
			continue
		}
		if joined {
			return value, true
		}
		if i+1 < len(args) {
			return args[i+1], true
		}
	}
	return DefaultFile, false
}

// ReadFiles reads the file and its drop-ins (`<file>.d/*.yaml`, `*.yml`, in
// byte order) and merges them: a later file replaces a key's whole value,
// `key+:` appends to what was there.
func ReadFiles(path string, explicit bool) ([]Entry, error) {
	files, err := listFiles(path, explicit)
	if err != nil {
		return nil, err
	}
	var merged []Entry
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var items yaml.MapSlice
		if err := yaml.Unmarshal(data, &items); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, item := range items {
			merged = merge(merged, item)
		}
	}
	return merged, nil
}

// listFiles returns the existing files in the order in which they are merged.
func listFiles(path string, explicit bool) ([]string, error) {
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		return nil, fmt.Errorf("configuration from a URL (%s) is not part of this stand-in", path)
	}
	var files []string
	_, mainErr := os.Stat(path)
	if mainErr == nil {
		files = append(files, path)
	} else if !errors.Is(mainErr, fs.ErrNotExist) {
		return nil, mainErr
	}
	entries, err := os.ReadDir(path + ".d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var dropIns []string
	for _, entry := range entries {
		ext := filepath.Ext(entry.Name())
		if !entry.IsDir() && (ext == ".yaml" || ext == ".yml") {
			dropIns = append(dropIns, filepath.Join(path+".d", entry.Name()))
		}
	}
	sort.Strings(dropIns)
	files = append(files, dropIns...)
	if len(files) == 0 && explicit {
		return nil, fmt.Errorf("configuration file %s: %w", path, mainErr)
	}
	return files, nil
}

// merge adds one key of a file.
func merge(entries []Entry, item yaml.MapItem) []Entry {
	key, add := strings.CutSuffix(fmt.Sprint(item.Key), "+")
	values := toStrings(item.Value)
	for i := range entries {
		if entries[i].Key != key {
			continue
		}
		if add {
			values = append(entries[i].Values, values...)
		}
		entries[i].Values = values
		return entries
	}
	return append(entries, Entry{Key: key, Values: values})
}

// toStrings turns a YAML value into the strings that stand after `--key=`.
func toStrings(value any) []string {
	switch v := value.(type) {
	case nil:
		return []string{""}
	case []any:
		var values []string
		for _, item := range v {
			values = append(values, toStrings(item)...)
		}
		return values
	default:
		return []string{fmt.Sprint(v)}
	}
}

// Args writes the entries as command line arguments: lists repeat their
// option, one-letter keys take one dash.
func Args(entries []Entry) []string {
	var args []string
	for _, entry := range entries {
		dash := "--"
		if len(entry.Key) == 1 {
			dash = "-"
		}
		for _, value := range entry.Values {
			args = append(args, dash+entry.Key+"="+value)
		}
	}
	return args
}
