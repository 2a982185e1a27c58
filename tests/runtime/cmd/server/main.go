// Command server is the stand-in's one big program, installed as bin/k3s. It
// becomes containerd, ctr, kubectl or a k3s command by the name it is called
// by, or by its first argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/agent"
	"k3img.test/runtime/internal/checkconfig"
	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/notify"
	"k3img.test/runtime/internal/parts"
	"k3img.test/runtime/internal/server"
)

// version is set when linking.
var version = "v0.0.0+standin0"

const usage = `k3s - a stand-in for k3s that k3img's tests use: upstream Kubernetes, kine, etcd
and containerd, started by k3s' command line. It is not k3s.

Commands: server, agent, kubectl, ctr, etcd-snapshot, check-config, token
Options:  --version, --help
`

const exitFailure = 1

func main() {
	exit(dispatch(os.Args))
}

// dispatch chooses the program by the name it was called by, then by the
// first argument.
func dispatch(args []string) error {
	name := filepath.Base(args[0])
	switch name {
	case "containerd", "ctr", "kubectl", "crictl":
		return run(name, args[1:])
	}
	if command, ok := strings.CutPrefix(name, "k3s-"); ok {
		return run(command, skipCommand(command, args[1:]))
	}
	rest := config.AfterGlobals(args[1:])
	if len(rest) == 0 {
		fmt.Print(usage)
		return nil
	}
	return run(rest[0], rest[1:])
}

// skipCommand drops the command's own name from `k3s-server server ...`,
// which is how the self-extracting file calls it.
func skipCommand(command string, args []string) []string {
	if len(args) > 0 && args[0] == command {
		return args[1:]
	}
	return args
}

// exit ends the program, with an error printed as k3s does.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	fmt.Fprintf(os.Stderr, "level=fatal msg=%q\n", "Error: "+err.Error())
	os.Exit(exitFailure)
}

// exitCode is the end of a program that has reported its failure already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(command string, args []string) error {
	switch command {
	case "server":
		return runServer(args)
	case "agent":
		return runAgent(args)
	case "containerd":
		return parts.Containerd(append([]string{"containerd"}, args...))
	case "ctr":
		setDefault("CONTAINERD_ADDRESS", agent.Socket)
		setDefault("CONTAINERD_NAMESPACE", "k8s.io")
		return parts.Ctr(append([]string{"ctr"}, args...))
	case "kubectl":
		return runKubectl(args)
	case "etcd-snapshot":
		return server.Snapshot(args)
	case "check-config":
		return runCheckConfig(args)
	case "--version", "-v", "-version":
		fmt.Printf("k3s version %s (standin)\ngo version %s\n", version, runtime.Version())
		return nil
	case "--help", "-h", "help":
		fmt.Print(usage)
		return nil
	case "crictl", "token", "secrets-encrypt", "certificate", "completion":
		return fmt.Errorf("k3s %s is not part of this stand-in", command)
	}
	return fmt.Errorf("no command %q; k3s --help lists the commands", command)
}

// runServer is `k3s server`.
func runServer(args []string) error {
	options, err := config.Load(config.Server, args)
	if err != nil {
		return err
	}
	socket := notify.Take()
	if err := startLog(options); err != nil {
		return err
	}
	logrus.Infof("Starting k3s %s (standin)", version)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	instance := &server.Server{Options: options, Notify: socket, Version: version}
	if err := instance.Run(ctx); !errors.Is(err, server.ErrReset) {
		return err
	}
	return nil
}

// runAgent is `k3s agent`: its options are checked strictly.
func runAgent(args []string) error {
	options, err := config.Load(config.Agent, args)
	if err != nil {
		return err
	}
	socket := notify.Take()
	if err := startLog(options); err != nil {
		return err
	}
	if options.Get("server") == "" {
		return errors.New("--server is required")
	}
	logrus.Infof("Starting k3s agent %s (standin)", version)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	instance := &agent.Agent{Options: options, Notify: socket}
	return instance.Run(ctx)
}

// startLog sets the log up and reports what loading the options found.
func startLog(options *config.Values) error {
	logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	logrus.SetOutput(os.Stderr)
	if path := options.Get("log"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		logrus.SetOutput(file)
	}
	if options.Bool("debug") {
		logrus.SetLevel(logrus.DebugLevel)
	}
	for _, warning := range options.Warnings {
		logrus.Warn(warning)
	}
	return nil
}

// runKubectl is kubectl with the server's kubeconfig by default.
func runKubectl(args []string) error {
	path := "/etc/rancher/k3s/k3s.yaml"
	if _, err := os.Stat(path); err != nil {
		if other := config.FindString(nil, "write-kubeconfig", "o"); other != "" {
			path = other
		}
	}
	setDefault("KUBECONFIG", path)
	if code := parts.Kubectl(append([]string{"kubectl"}, args...)); code != 0 {
		return exitCode(code)
	}
	return nil
}

func runCheckConfig(args []string) error {
	path := ""
	if len(args) > 0 {
		path = args[0]
	}
	missing, err := checkconfig.Run(os.Stdout, path)
	if err != nil {
		return err
	}
	if missing > 0 {
		return exitCode(exitFailure)
	}
	return nil
}

// setDefault sets an environment variable that is not set.
func setDefault(name, value string) {
	if os.Getenv(name) == "" {
		_ = os.Setenv(name, value)
	}
}
