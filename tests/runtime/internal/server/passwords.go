package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const passwordSuffix = ".node-password.k3s"

// client speaks to the API as the supervisor.
func (s *Server) client() (*kubernetes.Clientset, error) {
	config, err := s.clientConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// checkPassword compares a node's password with the one it came with first,
// which is kept as a hash in the cluster. A first one is taken.
func (s *Server) checkPassword(ctx context.Context, node, password string) error {
	if password == "" {
		return &refusal{http.StatusForbidden, "node password is missing"}
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	// A fast hash is enough for random passwords of 128 bits (k3s takes scrypt).
	sum := sha256.Sum256([]byte(node + ":" + password))
	wanted := hex.EncodeToString(sum[:])
	secrets := client.CoreV1().Secrets("kube-system")
	found, err := secrets.Get(ctx, node+passwordSuffix, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		immutable := true
		_, err := secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: node + passwordSuffix}, Immutable: &immutable, Data: map[string][]byte{"hash": []byte(wanted)},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(found.Data["hash"], []byte(wanted)) != 1 {
		return &refusal{http.StatusForbidden, fmt.Sprintf(
			"Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag: hash does not match (%s)", node)}
	}
	return nil
}

// forgetPasswords removes the passwords of nodes that were deleted, as k3s'
// node controller does.
func (s *Server) forgetPasswords(ctx context.Context) {
	client, err := s.client()
	if err != nil {
		logrus.Errorf("Failed to watch for deleted nodes: %v", err)
		return
	}
	known := map[string]bool{}
	for {
		if nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			now := map[string]bool{}
			for _, node := range nodes.Items {
				now[node.Name] = true
			}
			for name := range known {
				if now[name] {
					continue
				}
				if err := client.CoreV1().Secrets("kube-system").Delete(ctx, name+passwordSuffix, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
					logrus.Warnf("Failed to forget the password of %s: %v", name, err)
				}
			}
			known = now
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}
