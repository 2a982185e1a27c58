package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/balancer"
	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/join"
	"k3img.test/runtime/internal/kubeconfig"
	"k3img.test/runtime/internal/nodeinfo"
	"k3img.test/runtime/internal/notify"
	"k3img.test/runtime/internal/token"
)

const (
	retryPause   = 5 * time.Second
	serversEvery = 10 * time.Second
)

// Agent is `k3s agent`: it joins a server and runs a node.
type Agent struct {
	Options *config.Values
	Notify  notify.Socket

	node     *Node
	balancer *balancer.Balancer
	client   *join.Client

	failOnce sync.Once
	failed   chan error
}

// Run joins, starts the node and returns when ctx ends or a part fails. It
// waits for a server for ever, as k3s does, and says why.
func (a *Agent) Run(ctx context.Context) error {
	a.failed = make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := nodeinfo.CheckClock(time.Now()); err != nil {
		return err
	}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	settings, err := a.join(ctx)
	if err != nil {
		return err
	}
	a.node.ClusterCIDR, a.node.ClusterDNS, a.node.ClusterDomain = settings.ClusterCIDR, settings.ClusterDNS, settings.ClusterDomain
	if err := a.balancer.Serve(ctx, a.localAddress()); err != nil {
		return err
	}
	defer a.node.Stop()
	if err := a.node.StartRuntime(ctx); err != nil {
		return err
	}
	if err := a.node.Run(ctx); err != nil {
		return err
	}
	go a.node.applyLabels(ctx)
	go a.followServers(ctx)
	if err := a.Notify.Send("READY=1"); err != nil {
		logrus.Warnf("Failed to notify systemd: %v", err)
	}
	logrus.Info("k3s agent is up and running")
	select {
	case <-ctx.Done():
		logrus.Info("Stopping")
		return nil
	case err := <-a.failed:
		return err
	}
}

func (a *Agent) fail(part string, err error) {
	a.failOnce.Do(func() { a.failed <- fmt.Errorf("%s: %w", part, err) })
}

func (a *Agent) localAddress() string {
	return net.JoinHostPort("127.0.0.1", a.Options.Get("lb-server-port"))
}

// prepare finds the node's name and address and the servers that it knows.
func (a *Agent) prepare(ctx context.Context) error {
	name, err := nodeinfo.Name(a.Options.Get("node-name"))
	if err != nil {
		return err
	}
	ips, err := nodeinfo.IPs(ctx, a.Options.Split("node-ip"), logrus.Warnf)
	if err != nil {
		return err
	}
	a.node = &Node{Options: a.Options, DataDir: a.Options.Get("data-dir"), Name: name, IPs: ips, Fail: a.fail}
	server, err := url.Parse(a.Options.Get("server"))
	if err != nil || server.Host == "" {
		return fmt.Errorf("invalid server url %q", a.Options.Get("server"))
	}
	host := server.Host
	if server.Port() == "" {
		host = net.JoinHostPort(server.Hostname(), "443")
	}
	if err := os.MkdirAll(a.node.Dir("etc"), 0o700); err != nil {
		return err
	}
	a.balancer = balancer.New(host, a.node.Dir("etc", "k3s-agent-load-balancer.json"))
	return nil
}

// join gets the cluster's settings and this node's certificates.
func (a *Agent) join(ctx context.Context) (*join.AgentConfig, error) {
	for {
		settings, err := a.tryJoin(ctx)
		if err == nil {
			return settings, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		logrus.Errorf("Waiting to retrieve agent configuration; server is not ready: %v", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

func (a *Agent) tryJoin(ctx context.Context) (*join.AgentConfig, error) {
	tok, err := a.token()
	if err != nil {
		return nil, err
	}
	client, err := join.Connect(ctx, a.Options.Get("server"), tok, a.balancer.Dial)
	if err != nil {
		return nil, err
	}
	a.client = client
	// A node that joined once needs no token any more; without a valid one it goes by its certificate.
	if cert, err := tls.LoadX509KeyPair(a.node.Dir("client-kubelet.crt"), a.node.Dir("client-kubelet.key")); err == nil && tok.Password == "" {
		a.client = client.WithCert(cert, a.balancer.Dial)
	}
	data, err := a.client.Get(ctx, join.Config)
	if err != nil {
		return nil, err
	}
	settings := &join.AgentConfig{}
	if err := json.Unmarshal(data, settings); err != nil {
		return nil, err
	}
	return settings, a.fetchCertificates(ctx)
}

// token reads the token or its file; none is enough for a node that has its
// certificate.
func (a *Agent) token() (token.Token, error) {
	text := a.Options.Get("token")
	if file := a.Options.Get("token-file"); text == "" && file != "" {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return token.Token{}, err
		}
		text = strings.TrimSpace(string(data))
	}
	if text == "" {
		if _, err := os.Stat(a.node.Dir("client-kubelet.crt")); err == nil {
			return token.Token{}, nil
		}
		return token.Token{}, errors.New("--token is required")
	}
	return token.Parse(text, "node")
}

// fetchCertificates gets the CAs and has this node's keys signed.
func (a *Agent) fetchCertificates(ctx context.Context) error {
	password, err := nodeinfo.Password(nodeinfo.PasswordFile)
	if err != nil {
		return err
	}
	ca, err := a.client.Get(ctx, join.ClientCA)
	if err != nil {
		return err
	}
	headers := map[string]string{join.NodeName: a.node.Name, join.NodePassword: password, join.NodeIP: strings.Join(a.node.IPs, ",")}
	for path, file := range map[string]string{join.ServeKubelet: "serving-kubelet", join.ClientKubelet: "client-kubelet", join.ClientProxy: "client-kube-proxy"} {
		request, err := certs.Request(a.node.Dir(file + ".key"))
		if err != nil {
			return err
		}
		cert, err := a.client.Do(ctx, "POST", path, request, headers)
		if err != nil {
			return err
		}
		if err := certs.WriteFile(a.node.Dir(file+".crt"), cert, 0o644); err != nil {
			return err
		}
	}
	for file, data := range map[string][]byte{"client-ca.crt": ca, "server-ca.crt": a.client.Bundle} {
		if err := certs.WriteFile(a.node.Dir(file), data, 0o644); err != nil {
			return err
		}
	}
	return errors.Join(a.writeKubeconfig("kubelet", "client-kubelet"), a.writeKubeconfig("kubeproxy", "client-kube-proxy"))
}

func (a *Agent) writeKubeconfig(name, base string) error {
	return kubeconfig.Write(a.node.Dir(name+".kubeconfig"), "https://"+a.localAddress(), a.client.Bundle, a.node.Dir(base), 0o600)
}

// followServers asks for the cluster's servers now and then, with the node's
// certificate: the token may have changed since.
func (a *Agent) followServers(ctx context.Context) {
	cert, err := tls.LoadX509KeyPair(a.node.Dir("client-kubelet.crt"), a.node.Dir("client-kubelet.key"))
	if err != nil {
		a.fail("load balancer", err)
		return
	}
	client := a.client.WithCert(cert, a.balancer.Dial)
	for {
		var servers []string
		data, err := client.Get(ctx, join.APIServers)
		if err == nil {
			err = json.Unmarshal(data, &servers)
		}
		if err != nil {
			logrus.Warnf("Failed to ask for the cluster's servers: %v", err)
		} else {
			a.balancer.Set(servers)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(serversEvery):
		}
	}
}
