package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k3img.test/runtime/internal/certs"
)

// runNetwork waits until the node has its range of pod addresses, writes the
// pods' network (a bridge) and leads to the other nodes' pods. The stand-in
// has no flannel; this does what flannel's vxlan backend does.
func (n *Node) runNetwork(ctx context.Context) error {
	client, err := n.apiClient("kubelet")
	if err != nil {
		return err
	}
	for {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err == nil {
			if own := podNetwork(node); own != nil {
				if err := n.writeNetwork(own); err != nil {
					return err
				}
				return n.runOverlay(ctx, own)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// writeNetwork writes the bridge's configuration when it changed.
func (n *Node) writeNetwork(own *net.IPNet) error {
	mtu := 1450
	if parent, err := linkOf(net.ParseIP(n.IPs[0])); err == nil {
		mtu = parent.Attrs().MTU - overlayCost
	}
	list := map[string]any{
		"cniVersion": "1.0.0",
		"name":       "k3img-standin",
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": mtu,
				"ipam": map[string]any{
					"type": "host-local", "ranges": [][]map[string]string{{{"subnet": own.String()}}}, "routes": []map[string]string{{"dst": "0.0.0.0/0"}},
				},
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
	logrus.Infof("Pod network %s written to %s", own, path)
	return nil
}
