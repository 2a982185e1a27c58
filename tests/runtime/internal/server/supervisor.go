package server

import (
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/join"
	"k3img.test/runtime/internal/token"
)

const bodyLimit = 1 << 20

// caller is who asks the supervisor.
type caller struct {
	server bool   // has the server token
	node   string // the node of a client certificate, or ""
}

// supervisorPaths are k3s' own paths for nodes that join.
func (s *Server) supervisorPaths(mux *http.ServeMux) {
	agents := func(pattern string, handler func(http.ResponseWriter, *http.Request, caller) error) {
		mux.HandleFunc(pattern, s.guard(false, handler))
	}
	servers := func(pattern string, handler func(http.ResponseWriter, *http.Request, caller) error) {
		mux.HandleFunc(pattern, s.guard(true, handler))
	}
	agents("GET "+join.Config, s.serveConfig)
	agents("GET "+join.APIServers, s.serveAPIServers)
	agents("GET "+join.ClientCA, func(w http.ResponseWriter, _ *http.Request, _ caller) error {
		_, err := w.Write(s.pki.client.BundlePEM())
		return err
	})
	for _, path := range []string{join.ClientKubelet, join.ServeKubelet, join.ClientProxy} {
		agents("POST "+path, s.serveCertificate)
	}
	servers("GET "+join.Bootstrap, s.serveBootstrap)
	servers("POST "+join.Members, s.addMember)
	servers("PUT "+join.NewToken, s.rotateToken)
}

// refusal is an error that a caller is told with a status.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// guard lets only those through whom the token or a certificate allows.
func (s *Server) guard(serversOnly bool, handler func(http.ResponseWriter, *http.Request, caller) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := s.authenticate(r)
		switch {
		case !ok:
			http.Error(w, "not authorized", http.StatusUnauthorized)
		case serversOnly && !who.server:
			http.Error(w, "forbidden: the server token is needed", http.StatusForbidden)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
			err := handler(w, r, who)
			var refused *refusal
			if errors.As(err, &refused) {
				http.Error(w, refused.text, refused.status)
			} else if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
			if err != nil {
				logrus.Warnf("%s %s from %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
			}
		}
	}
}

// authenticate knows callers by the token in their basic auth, or by a
// kubelet's certificate of this cluster.
func (s *Server) authenticate(r *http.Request) (caller, bool) {
	if user, password, ok := r.BasicAuth(); ok {
		s.tokenLock.Lock()
		server, agent := s.token.Password, s.agentPassword
		s.tokenLock.Unlock()
		switch {
		case user == "server" && same(password, server):
			return caller{server: true}, true
		case user == "node" && same(password, agent):
			return caller{}, true
		}
		return caller{}, false
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}, false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.pki.client.BundlePEM())
	cert := r.TLS.PeerCertificates[0]
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return caller{}, false
	}
	node, ok := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	return caller{node: node}, ok
}

func same(a, b string) bool {
	return b != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

func reply(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

func (s *Server) serveConfig(w http.ResponseWriter, _ *http.Request, _ caller) error {
	return reply(w, join.AgentConfig{ClusterCIDR: s.network.clusterCIDR, ClusterDNS: s.network.dns, ClusterDomain: s.network.domain})
}

// serveAPIServers lists the servers that the kubernetes service leads to.
func (s *Server) serveAPIServers(w http.ResponseWriter, r *http.Request, _ caller) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	slices, err := client.DiscoveryV1().EndpointSlices("default").List(r.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		return err
	}
	servers := []string{}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			for _, address := range endpoint.Addresses {
				for _, port := range slice.Ports {
					servers = append(servers, net.JoinHostPort(address, fmt.Sprint(*port.Port)))
				}
			}
		}
	}
	return reply(w, servers)
}

// serveCertificate signs a node's key, once the node has proven to be the one
// that registered under its name.
func (s *Server) serveCertificate(w http.ResponseWriter, r *http.Request, who caller) error {
	name := strings.ToLower(r.Header.Get(join.NodeName))
	if name == "" || (who.node != "" && who.node != name) {
		return &refusal{http.StatusBadRequest, "node name is missing, or another than the certificate's"}
	}
	if err := s.checkPassword(r.Context(), name, r.Header.Get(join.NodePassword)); err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	public, err := certs.ParseRequest(body)
	if err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	ca, leaf := s.pki.client, client("system:node:"+name, "system:nodes")
	switch r.URL.Path {
	case join.ClientProxy:
		leaf = client("system:kube-proxy")
	case join.ServeKubelet:
		names := append([]string{name, "localhost", "127.0.0.1"}, strings.Split(r.Header.Get(join.NodeIP), ",")...)
		ca, leaf = s.pki.server, certs.Leaf{CommonName: name, Server: true, Names: names}
	}
	cert, err := ca.Issue(leaf, public, time.Now())
	if err != nil {
		return err
	}
	_, err = w.Write(cert)
	return err
}

// rotateToken sets a new server token, as `k3s token rotate` asks for it.
func (s *Server) rotateToken(w http.ResponseWriter, r *http.Request, _ caller) error {
	var request join.TokenRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	fresh, err := token.Parse(request.NewToken, "server")
	if err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	s.tokenLock.Lock()
	defer s.tokenLock.Unlock()
	fresh.CAHash, fresh.User = s.token.CAHash, "server"
	if err := s.moveBootstrap(r.Context(), fresh); err != nil {
		return err
	}
	if err := certs.WriteFile(s.dir("token"), []byte(fresh.String()+"\n"), 0o600); err != nil {
		return err
	}
	s.token = fresh
	logrus.Info("The server token was rotated")
	w.WriteHeader(http.StatusOK)
	return nil
}

// bootstrapFiles are the cluster's CAs and the key of its service accounts.
var bootstrapFiles = []string{
	"server-ca.crt", "server-ca.key", "client-ca.crt", "client-ca.key", "request-header-ca.crt", "request-header-ca.key",
	"etcd/peer-ca.crt", "etcd/peer-ca.key", "etcd/server-ca.crt", "etcd/server-ca.key", "service.key",
}

func (s *Server) serveBootstrap(w http.ResponseWriter, _ *http.Request, _ caller) error {
	data := join.BootstrapData{Files: map[string][]byte{}, Critical: s.criticalOptions()}
	for _, name := range bootstrapFiles {
		body, err := os.ReadFile(s.dir("tls", name))
		if err != nil {
			return err
		}
		data.Files[name] = body
	}
	return reply(w, data)
}
