package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/registries"
)

const (
	// StateDir and Socket are fixed in k3s, whatever the data directory is.
	StateDir = "/run/k3s/containerd"
	Socket   = StateDir + "/containerd.sock"

	namespace   = "k8s.io"
	logLimit    = 50 << 20
	startLimit  = 5 * time.Minute
	stopLimit   = 10 * time.Second
	lastLogSize = 2048
)

// containerdProcess is a running containerd.
type containerdProcess struct {
	process *os.Process
	logFile string
	done    chan struct{} // closed after exit
	err     error         // why it ended; read after done
	stopped chan struct{} // closed when the end is wanted
}

// writeContainerdConfig writes config.toml and the registries' hosts files.
func (n *Node) writeContainerdConfig() error {
	hostLocal, err := exec.LookPath("host-local")
	if err != nil {
		return fmt.Errorf("failed to find host-local: %w", err)
	}
	mirrors, err := registries.Read(n.Options.Get("private-registry"))
	if err != nil {
		return err
	}
	if err := mirrors.WriteHosts(n.Dir("etc", "containerd", "certs.d")); err != nil {
		return err
	}
	var text strings.Builder
	err = configTemplate.Execute(&text, map[string]any{
		"Root":        n.Dir("containerd"),
		"State":       StateDir,
		"Socket":      Socket,
		"Snapshotter": n.snapshotter(),
		"Pause":       n.Options.Get("pause-image"),
		"Systemd":     useSystemdCgroups(),
		"CNIBin":      filepath.Dir(hostLocal),
		"CNIConf":     n.Dir("etc", "cni", "net.d"),
		"Certs":       n.Dir("etc", "containerd", "certs.d"),
		"DropIns":     n.Dir("etc", "containerd", "config-v3.toml.d", "*.toml"),
		"Auth":        mirrors.Auths(),
		"Disabled":    disabledPlugins(n.snapshotter()),
	})
	if err != nil {
		return err
	}
	return certs.WriteFile(n.Dir("etc", "containerd", "config.toml"), []byte(text.String()), 0o600)
}

func (n *Node) snapshotter() string {
	return n.Options.Get("snapshotter")
}

// startContainerd starts the program that PATH calls containerd.
func (n *Node) startContainerd() (*containerdProcess, error) {
	path, err := exec.LookPath("containerd")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.Dir("containerd"), 0o711); err != nil {
		return nil, err
	}
	logFile := n.Dir("containerd", "containerd.log")
	if info, err := os.Stat(logFile); err == nil && info.Size() > logLimit {
		if err := os.Rename(logFile, logFile+".1"); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	args := []string{"-c", n.Dir("etc", "containerd", "config.toml")}
	if n.Options.Bool("debug") {
		args = append(args, "-l", "debug")
	}
	logrus.Infof("Running %s %s, log in %s", path, strings.Join(args, " "), logFile)
	command := exec.Command(path, args...)
	command.Args[0] = "containerd"
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	process := &containerdProcess{logFile: logFile, done: make(chan struct{}), stopped: make(chan struct{})}
	started := make(chan error)
	go process.run(command, log, started, n.Fail)
	return process, <-started
}

// run holds its thread for containerd's whole life: Pdeathsig counts the
// thread that started the child, not the process.
func (p *containerdProcess) run(command *exec.Cmd, log *os.File, started chan<- error, fail func(string, error)) {
	runtime.LockOSThread()
	defer log.Close()
	err := command.Start()
	if err == nil {
		p.process = command.Process
	}
	started <- err
	if err != nil {
		return
	}
	p.err = command.Wait()
	close(p.done)
	select {
	case <-p.stopped:
	default:
		fail("containerd", fmt.Errorf("ended with %v; its last lines:\n%s", p.err, tail(p.logFile)))
	}
}

// connect waits until containerd answers.
func (p *containerdProcess) connect(ctx context.Context) (*containerd.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		client, err := containerd.New(Socket, containerd.WithDefaultNamespace(namespace), containerd.WithTimeout(time.Second))
		if err == nil {
			if _, err = client.Version(ctx); err == nil {
				return client, nil
			}
			_ = client.Close()
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("containerd ended: %w", p.err)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// stop ends containerd and waits for it.
func (p *containerdProcess) stop() {
	close(p.stopped)
	_ = p.process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		_ = p.process.Kill()
		<-p.done
	}
}

// tail returns the end of a file.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > lastLogSize {
		data = data[len(data)-lastLogSize:]
	}
	return string(data)
}

func containsWord(text, word string) bool {
	for _, field := range strings.Fields(text) {
		if field == word {
			return true
		}
	}
	return false
}
