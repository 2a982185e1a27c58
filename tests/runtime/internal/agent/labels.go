package agent

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"k3img.test/runtime/internal/config"
)

// apiClient speaks to the API with one of the node's kubeconfigs.
func (n *Node) apiClient(name string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", n.Dir(name+".kubeconfig"))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// Labels are those of the configuration, and the one that k3s gives a node.
func Labels(options *config.Values) map[string]string {
	labels := map[string]string{"node.kubernetes.io/instance-type": "k3s"}
	for _, label := range options.List("node-label") {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	return labels
}

// applyLabels puts the configuration's labels on the node at every start, as
// k3s does; the kubelet itself sets them only when it registers.
func (n *Node) applyLabels(ctx context.Context) {
	client, err := n.apiClient("kubelet")
	if err != nil {
		logrus.Errorf("Failed to label the node: %v", err)
		return
	}
	Patch(ctx, client, n.Name, map[string]any{"labels": Labels(n.Options)})
}

// Patch merges metadata into a Node, as soon as there is that Node.
func Patch(ctx context.Context, client kubernetes.Interface, name string, metadata map[string]any) {
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	for {
		if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
