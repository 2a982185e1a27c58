package parts

import (
	"context"

	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Kubelet runs the kubelet. It is the one part that listens to SIGTERM and
// SIGINT by itself, so it may run only once in a process.
func Kubelet(ctx context.Context, args []string) error {
	cmd := kubelet.NewKubeletCommand(ctx)
	cmd.SetArgs(args)
	cmd.SilenceErrors = true
	return cmd.ExecuteContext(ctx)
}

// KubeProxy runs kube-proxy.
func KubeProxy(ctx context.Context, args []string) error {
	cmd := proxy.NewProxyCommand()
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return cmd.ExecuteContext(ctx)
}
