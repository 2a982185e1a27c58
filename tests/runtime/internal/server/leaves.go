package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/kubeconfig"
)

const defaultKubeconfig = "/etc/rancher/k3s/k3s.yaml"

// servingNames are the names of the certificate on the supervisor's port.
func (s *Server) servingNames() []string {
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.network.domain,
		"localhost", "127.0.0.1", "::1", s.network.serviceIP, s.nodeName, s.nodeIP, s.advertiseAddress(),
	}
	names = append(names, s.Options.Split("node-ip")...)
	return append(names, s.Options.Split("tls-san")...)
}

// makeLeaves issues or renews every certificate that this server uses and
// writes the kubeconfigs that hold them.
func (s *Server) makeLeaves() error {
	etcdNames := []string{"localhost", "127.0.0.1", "::1", s.nodeName, s.nodeIP}
	kubeletNames := append([]string{s.nodeName, "localhost", "127.0.0.1"}, s.nodeIP)
	for _, item := range []struct {
		ca   *certs.CA
		file string
		leaf certs.Leaf
	}{
		{s.pki.client, "server/tls/client-admin", client("system:admin", "system:masters")},
		{s.pki.client, "server/tls/client-supervisor", client("system:k3s-supervisor", "system:masters")},
		{s.pki.client, "server/tls/client-controller", client("system:kube-controller-manager")},
		{s.pki.client, "server/tls/client-scheduler", client("system:kube-scheduler")},
		{s.pki.client, "server/tls/client-kube-apiserver", client("system:apiserver", "system:masters")},
		{s.pki.client, "server/tls/client-kube-proxy", client("system:kube-proxy")},
		{s.pki.client, "agent/client-kube-proxy", client("system:kube-proxy")},
		{s.pki.client, "agent/client-kubelet", client("system:node:"+s.nodeName, "system:nodes")},
		{s.pki.requestHeader, "server/tls/client-auth-proxy", client("system:auth-proxy")},
		{s.pki.server, "server/tls/serving-kube-apiserver", certs.Leaf{CommonName: "kube-apiserver", Server: true, Names: s.servingNames()}},
		{s.pki.server, "agent/serving-kubelet", certs.Leaf{CommonName: s.nodeName, Server: true, Names: kubeletNames}},
		{s.pki.etcdServer, "server/tls/etcd/client", client("etcd-client")},
		{s.pki.etcdServer, "server/tls/etcd/server-client", certs.Leaf{CommonName: "etcd-server", Server: true, Client: true, Names: etcdNames}},
		{s.pki.etcdPeer, "server/tls/etcd/peer-server-client", certs.Leaf{CommonName: "etcd-peer", Server: true, Client: true, Names: etcdNames}},
	} {
		base := filepath.Join(s.dataDir, item.file)
		reason, err := item.ca.Ensure(item.leaf, base+".crt", base+".key", time.Now())
		if err != nil {
			return fmt.Errorf("certificate %s: %w", item.file, err)
		}
		if reason != "" {
			logrus.Infof("Issued certificate %s (%s)", item.file, reason)
		}
	}
	return s.writeKubeconfigs()
}

func client(name string, organizations ...string) certs.Leaf {
	return certs.Leaf{CommonName: name, Organizations: organizations, Client: true}
}

// writeKubeconfigs writes the parts' kubeconfigs and the administrator's.
func (s *Server) writeKubeconfigs() error {
	for file, base := range map[string]string{
		"server/cred/supervisor.kubeconfig": "server/tls/client-supervisor",
		"server/cred/controller.kubeconfig": "server/tls/client-controller",
		"server/cred/scheduler.kubeconfig":  "server/tls/client-scheduler",
		"server/cred/admin.kubeconfig":      "server/tls/client-admin",
		"agent/kubelet.kubeconfig":          "agent/client-kubelet",
		"agent/kubeproxy.kubeconfig":        "agent/client-kube-proxy",
	} {
		if err := s.writeKubeconfig(filepath.Join(s.dataDir, file), base, 0o600); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o600)
	if text := s.Options.Get("write-kubeconfig-mode"); text != "" {
		parsed, err := strconv.ParseUint(text, 8, 32)
		if err != nil {
			return fmt.Errorf("write-kubeconfig-mode: %w", err)
		}
		mode = os.FileMode(parsed)
	}
	path := s.Options.Get("write-kubeconfig")
	if path == "" {
		path = defaultKubeconfig
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = s.writeKubeconfig(path, "server/tls/client-admin", mode)
	}
	if err != nil {
		return fmt.Errorf("failed to write kubeconfig: %w", err)
	}
	if path != defaultKubeconfig {
		if err := linkKubeconfig(path); err != nil {
			logrus.Errorf("Failed to link %s: %v", defaultKubeconfig, err)
		}
	}
	logrus.Infof("Wrote kubeconfig %s", path)
	return nil
}

// linkKubeconfig keeps the usual place usable when the file is elsewhere.
func linkKubeconfig(path string) error {
	if err := os.MkdirAll(filepath.Dir(defaultKubeconfig), 0o755); err != nil {
		return err
	}
	return link(path, defaultKubeconfig)
}

// writeKubeconfig writes one file with its certificates embedded.
func (s *Server) writeKubeconfig(path, base string, mode os.FileMode) error {
	return kubeconfig.Write(path, s.localURL(), s.pki.server.BundlePEM(), filepath.Join(s.dataDir, base), mode)
}

// localURL is where this server's own parts reach the API.
func (s *Server) localURL() string {
	host := "127.0.0.1"
	if bind := s.Options.Get("bind-address"); bind != "" && bind != "0.0.0.0" && bind != "::" {
		host = bind
	}
	return "https://" + net.JoinHostPort(host, s.port)
}

// advertiseAddress is the address that the kubernetes service leads to.
func (s *Server) advertiseAddress() string {
	if address := s.Options.Get("advertise-address"); address != "" {
		return address
	}
	return strings.TrimSpace(s.nodeIP)
}
