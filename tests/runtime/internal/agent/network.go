package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"k3img.test/runtime/internal/certs"
)

// configureNetwork waits until the node has its range of pod addresses and
// writes the pods' network: a bridge. The stand-in has no flannel, so pods of
// different nodes do not reach each other.
func (n *Node) configureNetwork(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", n.Dir("kubelet.kubeconfig"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err == nil && len(node.Spec.PodCIDRs) > 0 {
			return n.writeNetwork(node)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// writeNetwork writes the bridge's configuration when it changed.
func (n *Node) writeNetwork(node *corev1.Node) error {
	var ranges [][]map[string]string
	for _, cidr := range node.Spec.PodCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": cidr}})
	}
	list := map[string]any{
		"cniVersion": "1.0.0",
		"name":       "k3img-standin",
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": []map[string]string{{"dst": "0.0.0.0/0"}}},
			},
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	path := n.Dir("etc", "cni", "net.d", "10-standin.conflist")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := certs.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing the pods' network: %w", err)
	}
	logrus.Infof("Pod network %v written to %s", node.Spec.PodCIDRs, path)
	return nil
}
