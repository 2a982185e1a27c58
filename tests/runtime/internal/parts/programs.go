package parts

import (
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // containerd's plug-ins
)

// Containerd is the main program of containerd.
func Containerd(args []string) error {
	return command.App().Run(args)
}

// Ctr is the main program of ctr.
func Ctr(args []string) error {
	return ctr.New().Run(args)
}

// Kubectl is the main program of kubectl; it returns the exit code.
func Kubectl(args []string) int {
	os.Args = args
	return cli.Run(kubectl.NewDefaultKubectlCommand())
}
