// Package agent runs a node's part of the cluster: containerd, the import of
// image archives, the kubelet, kube-proxy and the pods' network.
package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/parts"
)

// Node is what an agent needs to know; the certificates exist already.
type Node struct {
	Options *config.Values
	DataDir string
	Name    string
	IPs     []string

	ClusterCIDR   string
	ClusterDNS    []string
	ClusterDomain string

	// Fail ends the whole process: a part has stopped that must not.
	Fail func(part string, err error)

	runtime *containerdProcess
}

// Dir is the agent's folder below the data directory, or a path in it.
func (n *Node) Dir(elements ...string) string {
	return filepath.Join(append([]string{n.DataDir, "agent"}, elements...)...)
}

// StartRuntime prepares the kernel, starts containerd and imports the image
// archives. It needs no API server and so runs before there is one.
func (n *Node) StartRuntime(ctx context.Context) error {
	prepareKernel()
	for _, dir := range []string{n.Dir(), n.Dir("etc", "cni", "net.d"), n.Dir("images"), n.Dir("pod-manifests")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := n.writeContainerdConfig(); err != nil {
		return err
	}
	process, err := n.startContainerd()
	if err != nil {
		return err
	}
	n.runtime = process
	client, err := process.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return n.importImages(ctx, client)
}

// Run starts the kubelet, kube-proxy and the pods' network once the API
// server answers. It returns at once; failures go to Fail.
func (n *Node) Run(ctx context.Context) error {
	kubeletArgs, err := n.kubeletArgs()
	if err != nil {
		return err
	}
	n.start(ctx, "kubelet", func() error { return parts.Kubelet(ctx, kubeletArgs) })
	if n.Options.IsSet("disable-kube-proxy") && n.Options.Bool("disable-kube-proxy") {
		logrus.Info("kube-proxy is disabled")
	} else {
		proxyArgs := n.proxyArgs()
		n.start(ctx, "kube-proxy", func() error { return parts.KubeProxy(ctx, proxyArgs) })
	}
	n.start(ctx, "pod network", func() error { return n.runNetwork(ctx) })
	return nil
}

// start runs one part in the background and reports its end.
func (n *Node) start(ctx context.Context, part string, run func() error) {
	logrus.Infof("Starting %s", part)
	go func() {
		err := run()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("stopped without an error")
		}
		n.Fail(part, err)
	}()
}

// Stop ends containerd; pods keep running in their shims.
func (n *Node) Stop() {
	if n.runtime != nil {
		n.runtime.stop()
	}
}
