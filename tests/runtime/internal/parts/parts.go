// Package parts runs the upstream programs inside this process: Kubernetes'
// control plane and node programs, kine and etcd. Each Run function takes the
// program's own command line and returns when its context ends or it fails.
package parts

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/version/verflag"
)

func init() {
	// All parts share one process and so one logging configuration.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	// gRPC warns once per stream when a server stops; only its errors count.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
}

// Flags turns `name=value` strings of an option such as kubelet-arg into
// command line flags behind the defaults, so that they win. Flags of the
// logger are left out: all parts share one.
func Flags(defaults map[string]string, extra []string, warn func(format string, args ...any)) []string {
	var args []string
	overridden := map[string]bool{}
	var own []string
	for _, item := range extra {
		item = strings.TrimLeft(item, "-")
		name, _, hasValue := strings.Cut(item, "=")
		switch name {
		case "v", "vmodule", "logging-format", "log-flush-frequency":
			warn("Argument %q is ignored: the parts of the stand-in share one logger", item)
			continue
		}
		if !hasValue {
			item += "=true"
		}
		overridden[name] = true
		own = append(own, "--"+item)
	}
	for _, name := range sortedKeys(defaults) {
		if !overridden[name] {
			args = append(args, "--"+name+"="+defaults[name])
		}
	}
	return append(args, own...)
}

// parseNamed parses a program's arguments into its flag sets.
func parseNamed(program string, named cliflag.NamedFlagSets, args []string) error {
	verflag.AddFlags(named.FlagSet("global"))
	globalflag.AddGlobalFlags(named.FlagSet("global"), program, logs.SkipLoggingConfigurationFlags())
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, set := range named.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if rest := flags.Args(); len(rest) > 0 {
		return fmt.Errorf("%s: unexpected argument %q", program, rest[0])
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
