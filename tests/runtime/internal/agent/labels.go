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
)

// apiClient speaks to the API with one of the node's kubeconfigs.
func (n *Node) apiClient(name string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", n.Dir(name+".kubeconfig"))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// applyLabels puts the configuration's labels on the node at every start, as
// k3s does; the kubelet itself sets them only when it registers.
func (n *Node) applyLabels(ctx context.Context) {
	labels := map[string]string{"node.kubernetes.io/instance-type": "k3s"}
	for _, label := range n.Options.List("node-label") {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		logrus.Errorf("Failed to label the node: %v", err)
		return
	}
	client, err := n.apiClient("kubelet")
	if err != nil {
		logrus.Errorf("Failed to label the node: %v", err)
		return
	}
	for {
		if _, err := client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
