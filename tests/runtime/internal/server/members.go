package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/join"
	"k3img.test/runtime/internal/token"
)

// Annotations of a node that is an etcd member (k3s: pkg/etcd).
const (
	memberName    = "etcd.k3s.cattle.io/node-name"
	memberAddress = "etcd.k3s.cattle.io/node-address"
	removeMember  = "etcd.k3s.cattle.io/remove"
	removedMember = "etcd.k3s.cattle.io/removed-node-name"
)

const joinPause = 5 * time.Second

// errDuplicate is k3s' word for a name that a member has already.
var errDuplicate = errors.New("duplicate node name found, please use a unique name for this node")

// criticalOptions are those that must be equal on all servers.
func (s *Server) criticalOptions() map[string]string {
	found := map[string]string{}
	for _, name := range []string{"cluster-cidr", "service-cidr", "cluster-dns"} {
		found[name] = strings.Join(s.Options.Split(name), ",")
	}
	for _, name := range []string{"cluster-domain", "flannel-backend", "egress-selector-mode"} {
		found[name] = s.Options.Get(name)
	}
	for _, name := range []string{"disable-network-policy", "disable-helm-controller", "disable-cloud-controller", "secrets-encryption", "embedded-registry"} {
		found[name] = fmt.Sprint(s.Options.Bool(name))
	}
	return found
}

// joins says whether this server is to join others: it has no member yet, no
// datastore of its own, and was told a server.
func (s *Server) joins() bool {
	return s.Options.Get("server") != "" && s.Options.Get("datastore-endpoint") == "" && !s.hasEtcd() && !s.Options.Bool("cluster-reset")
}

// fetchBootstrap takes the cluster's CAs from the server that is joined.
func (s *Server) fetchBootstrap(ctx context.Context) error {
	text, err := s.readSecret("token")
	if err != nil {
		return err
	}
	if text == "" {
		return fmt.Errorf("--token is required to join a cluster")
	}
	tok, err := token.Parse(text, "server")
	if err != nil {
		return err
	}
	if s.remote, err = join.Connect(ctx, s.Options.Get("server"), tok, nil); err != nil {
		return fmt.Errorf("failed to validate server configuration: %w", err)
	}
	answer, err := s.remote.Get(ctx, join.Bootstrap)
	if err != nil {
		return fmt.Errorf("failed to bootstrap cluster data: %w", err)
	}
	var data join.BootstrapData
	if err := json.Unmarshal(answer, &data); err != nil {
		return err
	}
	for name, value := range s.criticalOptions() {
		if other, ok := data.Critical[name]; ok && other != value {
			return fmt.Errorf("failed to validate server configuration: critical configuration value mismatch between servers: %s is %q, theirs is %q", name, value, other)
		}
	}
	for _, name := range bootstrapFiles {
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0o644
		}
		if err := certs.WriteFile(s.dir("tls", name), data.Files[name], mode); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) peerURL() string { return "https://" + net.JoinHostPort(s.nodeIP, "2380") }

// joinEtcd becomes a member of the running servers' etcd.
func (s *Server) joinEtcd(start, run context.Context) (func(), error) {
	body, err := json.Marshal(join.MemberRequest{NodeName: s.nodeName, PeerURL: s.peerURL()})
	if err != nil {
		return nil, err
	}
	var members []join.Member
	for {
		answer, err := s.remote.Do(start, http.MethodPost, join.Members, body, nil)
		if err == nil {
			if err := json.Unmarshal(answer, &members); err != nil {
				return nil, err
			}
			break
		}
		var status *join.StatusError
		if !errors.As(err, &status) || status.Code != http.StatusServiceUnavailable {
			return nil, fmt.Errorf("failed to join the etcd cluster: %w", err)
		}
		logrus.Infof("Waiting to join the etcd cluster: %v", err)
		select {
		case <-start.Done():
			return nil, start.Err()
		case <-time.After(joinPause):
		}
	}
	name, err := s.etcdName()
	if err != nil {
		return nil, err
	}
	var initial []string
	for _, member := range members {
		called := member.Name
		if slices.Contains(member.PeerURL, s.peerURL()) {
			called = name
		}
		for _, url := range member.PeerURL {
			initial = append(initial, called+"="+url)
		}
	}
	return s.startEtcd(start, run, map[string]any{"initial-cluster": strings.Join(initial, ","), "initial-cluster-state": "existing"})
}

// addMember lets another server in as a learner, unless its name is taken.
// A member that was added before and never started is used again.
func (s *Server) addMember(w http.ResponseWriter, r *http.Request, _ caller) error {
	var request join.MemberRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	if s.etcd == nil {
		return errors.New("etcd is not running yet")
	}
	for _, member := range s.etcd.Members() {
		if at := strings.LastIndex(member.Name, "-"); at > 0 && member.Name[:at] == request.NodeName {
			return &refusal{http.StatusConflict, errDuplicate.Error()}
		}
		if member.Name == "" && slices.Contains(member.PeerURL, request.PeerURL) {
			return reply(w, s.etcd.Members())
		}
	}
	if err := s.etcd.Add(r.Context(), request.PeerURL); err != nil {
		return err
	}
	logrus.Infof("Added %s as an etcd learner", request.NodeName)
	return reply(w, s.etcd.Members())
}

// removeMembers takes members out whose node carries the annotation, and says
// so on the node.
func (s *Server) removeMembers(ctx context.Context) {
	client, err := s.client()
	if err != nil {
		logrus.Errorf("Failed to watch for etcd members to remove: %v", err)
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(joinPause):
		}
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/etcd"})
		if err != nil {
			continue
		}
		for _, node := range nodes.Items {
			name := node.Annotations[memberName]
			if node.Annotations[removeMember] != "true" || name == "" || node.Name == s.nodeName || node.Annotations[removedMember] == name {
				continue
			}
			if err := s.etcd.Remove(ctx, name); err != nil {
				logrus.Warnf("Failed to remove etcd member %s: %v", name, err)
				continue
			}
			logrus.Infof("Removed etcd member %s", name)
			patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, removedMember, name)
			if _, err := client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				logrus.Warnf("Failed to report the removal of %s: %v", name, err)
			}
		}
	}
}
