package config

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Values holds what the options of one command were set to.
type Values struct {
	role     Role
	set      map[string][]string
	Rest     []string // positional arguments
	Warnings []string // to be logged once logging works
}

// Load reads the configuration files and the command line of a role. Unknown
// keys of a file are dropped with a warning for servers and snapshots, and
// are an error for agents; an unknown option on the command line always is.
func Load(role Role, args []string) (*Values, error) {
	path, explicit := FilePath(args)
	entries, err := ReadFiles(path, explicit)
	if err != nil {
		return nil, err
	}
	values := &Values{role: role, set: map[string][]string{}}
	if role&Agent == 0 {
		entries = values.dropUnknown(entries)
	}
	fromFiles, err := parse(role, Args(entries))
	if err != nil {
		return nil, err
	}
	fromLine, err := parse(role, args)
	if err != nil {
		return nil, err
	}
	for name, v := range fromFiles.set {
		values.set[name] = v
	}
	for name, v := range fromLine.set { // a repeated option on the line replaces the file's whole list
		values.set[name] = v
	}
	values.Rest = fromLine.Rest
	values.readEnvironment()
	values.warnIgnored()
	return values, nil
}

// dropUnknown removes keys that the role does not know.
func (v *Values) dropUnknown(entries []Entry) []Entry {
	var known []Entry
	for _, entry := range entries {
		if _, ok := Find(v.role, entry.Key); ok {
			known = append(known, entry)
			continue
		}
		v.Warnings = append(v.Warnings, fmt.Sprintf("Unknown flag --%s found in config.yaml, skipping", entry.Key))
	}
	return known
}

// parse reads arguments; the words after the last option are returned as Rest.
func parse(role Role, args []string) (*Values, error) {
	values := &Values{role: role, set: map[string][]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			values.Rest = append(values.Rest, arg)
			continue
		}
		if arg == "--" {
			values.Rest = append(values.Rest, args[i+1:]...)
			break
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		option, ok := Find(role, name)
		if !ok {
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		if !joined && option.Kind != Bool {
			i++
			if i == len(args) {
				return nil, fmt.Errorf("flag needs an argument: -%s", name)
			}
			value = args[i]
		}
		if err := values.store(option, value, joined); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// store keeps one value after checking it.
func (v *Values) store(option Option, value string, joined bool) error {
	switch option.Kind {
	case Bool:
		if !joined {
			value = "true"
		}
		if _, err := strconv.ParseBool(value); err != nil {
			return fmt.Errorf("invalid boolean value %q for -%s: %w", value, option.Name, err)
		}
		v.set[option.Name] = []string{value}
	case List:
		v.set[option.Name] = append(v.set[option.Name], value)
	default:
		v.set[option.Name] = []string{value}
	}
	return nil
}

// readEnvironment fills options that neither files nor the command line set.
func (v *Values) readEnvironment() {
	for _, option := range Table {
		if option.Env == "" || option.Roles&v.role == 0 || v.IsSet(option.Name) {
			continue
		}
		value := os.Getenv(option.Env)
		if value == "" {
			continue
		}
		if option.Kind == List {
			v.set[option.Name] = strings.Split(value, ",")
		} else {
			v.set[option.Name] = []string{value}
		}
	}
}

// warnIgnored notes every option that was set but has no effect here.
func (v *Values) warnIgnored() {
	for _, option := range Table {
		if option.Ignored && option.Roles&v.role != 0 && v.IsSet(option.Name) {
			v.Warnings = append(v.Warnings, fmt.Sprintf("Option --%s is accepted and ignored: it is not part of the stand-in", option.Name))
		}
	}
}

// IsSet says whether an option was given anywhere.
func (v *Values) IsSet(name string) bool {
	_, ok := v.set[name]
	return ok
}

// Get returns an option's last value or its default.
func (v *Values) Get(name string) string {
	option, ok := Find(v.role, name)
	if !ok {
		panic("option " + name + " is not in the table for this role")
	}
	if values := v.set[option.Name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return option.Default
}

// Bool returns a boolean option.
func (v *Values) Bool(name string) bool {
	value, err := strconv.ParseBool(v.Get(name))
	return err == nil && value
}

// List returns all values of a repeated option, each as it was written.
func (v *Values) List(name string) []string {
	if values := v.set[name]; len(values) > 0 {
		return values
	}
	if value := v.Get(name); value != "" {
		return []string{value}
	}
	return nil
}

// Split is List with values that hold commas taken apart.
func (v *Values) Split(name string) []string {
	var parts []string
	for _, value := range v.List(name) {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, part)
			}
		}
	}
	return parts
}

// FindString looks one option up in files and arguments without a role: for
// those that count before the command line is parsed (data-dir).
func FindString(args []string, name, short string) string {
	found := ""
	path, explicit := FilePath(args)
	if entries, err := ReadFiles(path, explicit); err == nil {
		for _, entry := range entries {
			if entry.Key == name || entry.Key == short {
				found = strings.Join(entry.Values, ",")
			}
		}
	}
	for i, arg := range args {
		key, value, joined := strings.Cut(arg, "=")
		if key != "--"+name && key != "-"+name && key != "-"+short {
			continue
		}
		if joined {
			found = value
		} else if i+1 < len(args) {
			found = args[i+1]
		}
	}
	return found
}

// AfterGlobals drops the options that may stand before a command, such as
// `k3s --data-dir DIR check-config`.
func AfterGlobals(args []string) []string {
	for len(args) > 0 {
		name, _, joined := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		switch {
		case !strings.HasPrefix(args[0], "-"):
			return args
		case name == "debug" || name == "prefer-bundled-bin":
			args = args[1:]
		case (name == "data-dir" || name == "d") && joined:
			args = args[1:]
		case (name == "data-dir" || name == "d") && len(args) > 1:
			args = args[2:]
		default:
			return args
		}
	}
	return args
}
