// Command k3s is the published file of the stand-in: it carries the archive
// with the real programs, unpacks it once below the data directory and
// becomes the program that was asked for, as a k3s release file does.
package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/unpack"
)

//go:embed all:embed
var archive embed.FS

// version is set when linking.
var version = "v0.0.0+standin0"

const usage = `k3s - a stand-in for k3s that k3img's tests use; it is not k3s.

Commands: server, agent, kubectl, ctr, etcd-snapshot, check-config, token
Options:  --data-dir DIR (before or after the command), --version, --help
`

const defaultDataDir = "/var/lib/rancher/k3s"

// programs are the names that lead to a program of their own.
var programs = map[string]bool{"kubectl": true, "ctr": true, "crictl": true, "containerd": true}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "level=fatal msg=%q\n", "Error: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	command, rest := choose(args)
	switch command {
	case "--version", "-v", "-version":
		fmt.Printf("k3s version %s (standin)\n", version)
		return nil
	case "", "--help", "-h", "help":
		fmt.Print(usage)
		return nil
	}
	root, err := unpackOnce(dataDir(args[1:]))
	if err != nil {
		return err
	}
	if err := setPath(root, args[1:]); err != nil {
		return err
	}
	switch {
	case programs[command]:
		return become(command, rest)
	case command == "check-config":
		return become("k3s", append([]string{command}, rest...))
	}
	program := "k3s-" + command
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("no command %q", command)
	}
	return become(program, append([]string{command}, rest...))
}

// choose returns the command: the name the file is called by, or the first argument.
func choose(args []string) (command string, rest []string) {
	name := filepath.Base(args[0])
	if programs[name] {
		return name, args[1:]
	}
	if suffix, ok := strings.CutPrefix(name, "k3s-"); ok && suffix != "arm64" {
		return suffix, args[1:]
	}
	after := config.AfterGlobals(args[1:])
	if len(after) == 0 {
		return "", nil
	}
	return after[0], after[1:]
}

// dataDir finds the data directory before any option is parsed.
func dataDir(args []string) string {
	if dir := config.FindString(args, "data-dir", "d"); dir != "" {
		return dir
	}
	if dir := os.Getenv("K3S_DATA_DIR"); dir != "" {
		return dir
	}
	return defaultDataDir
}

// unpackOnce unpacks the carried archive unless it is there already.
func unpackOnce(dir string) (root string, err error) {
	entries, err := fs.ReadDir(archive, "embed")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		hash, ok := strings.CutSuffix(entry.Name(), ".tar.zst")
		if !ok {
			continue
		}
		data := filepath.Join(dir, "data")
		for _, place := range []string{filepath.Join(data, hash), filepath.Join(defaultDataDir, "data", hash)} {
			if _, err := os.Stat(filepath.Join(place, "bin", "k3s")); err == nil {
				return place, nil
			}
		}
		file, err := archive.Open("embed/" + entry.Name())
		if err != nil {
			return "", err
		}
		defer file.Close()
		return unpack.Into(data, hash, file)
	}
	return "", errors.New("this file was built without its archive")
}

// setPath puts the unpacked programs before the host's, and the fallbacks
// behind them.
func setPath(root string, args []string) error {
	cni := filepath.Join(filepath.Dir(root), "cni")
	parts := []string{cni, filepath.Join(root, "bin"), os.Getenv("PATH"), filepath.Join(root, "bin", "aux")}
	if config.FindString(args, "prefer-bundled-bin", "") == "true" {
		parts[2], parts[3] = parts[3], parts[2]
	}
	if err := os.Setenv("K3S_DATA_DIR", filepath.Dir(filepath.Dir(root))); err != nil {
		return err
	}
	return os.Setenv("PATH", strings.Join(parts, ":"))
}

// become replaces this process by a program found through PATH.
func become(program string, args []string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{program}, args...), os.Environ())
}
