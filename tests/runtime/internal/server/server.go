// Package server runs a whole server: certificates, the datastore, the control
// plane and its own node.
package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/agent"
	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/join"
	"k3img.test/runtime/internal/nodeinfo"
	"k3img.test/runtime/internal/notify"
	"k3img.test/runtime/internal/parts"
	"k3img.test/runtime/internal/token"
)

// apiStopLimit bounds how long the API server may take to end: it would wait
// for clients that watch.
const apiStopLimit = 2 * time.Second

// Server is one server's settings and state.
type Server struct {
	Options *config.Values
	Notify  notify.Socket
	Version string

	dataDir  string
	nodeName string
	nodeIPs  []string
	nodeIP   string // the first of them
	port     string
	network  network
	remote   *join.Client // of the server that is joined, or nil
	etcd     *parts.EtcdMember
	token    token.Token
	pki      *pki
	store    parts.Store
	front    *front
	node     *agent.Node

	tokenLock     sync.Mutex
	agentPassword string

	failOnce sync.Once
	failed   chan error
}

// Run starts everything and returns when ctx ends or a part fails.
func (s *Server) Run(ctx context.Context) error {
	s.failed = make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	storeCtx, stopStore := context.WithCancel(context.Background())
	waitStore, err := s.startStore(ctx, storeCtx)
	if err != nil {
		stopStore()
		return err
	}
	defer func() {
		stopStore()
		waitStore()
	}()
	if err := s.checkBootstrap(ctx); err != nil {
		return err
	}
	apiDone := s.startAPI(ctx)
	defer func() {
		cancel()
		select {
		case <-apiDone:
		case <-time.After(apiStopLimit):
			logrus.Info("The API server still has watching clients: not waiting for them")
		}
	}()
	defer func() {
		cancel()
		s.node.Stop()
	}()
	go s.bringUp(ctx)
	select {
	case <-ctx.Done():
		logrus.Info("Stopping")
		return nil
	case err := <-s.failed:
		return err
	}
}

// fail records the first failure of a part; Run then ends.
func (s *Server) fail(part string, err error) {
	s.failOnce.Do(func() { s.failed <- fmt.Errorf("%s: %w", part, err) })
}

// prepare reads the settings, makes the certificates and opens the port.
func (s *Server) prepare(ctx context.Context) error {
	if err := nodeinfo.CheckClock(time.Now()); err != nil {
		return err
	}
	var err error
	if s.dataDir, err = filepath.Abs(s.Options.Get("data-dir")); err != nil {
		return err
	}
	if s.nodeName, err = s.resolveName(); err != nil {
		return err
	}
	if s.nodeIPs, err = nodeinfo.IPs(ctx, s.Options.Split("node-ip"), logrus.Warnf); err != nil {
		return err
	}
	s.nodeIP = s.nodeIPs[0]
	if s.network, err = readNetwork(s.Options); err != nil {
		return err
	}
	s.port = s.Options.Get("https-listen-port")
	for _, dir := range []string{"server", "server/db", "server/manifests", "server/tls", "server/static", "agent"} {
		if err := os.MkdirAll(filepath.Join(s.dataDir, dir), 0o700); err != nil {
			return err
		}
	}
	if s.joins() {
		if err := s.fetchBootstrap(ctx); err != nil {
			return err
		}
	}
	if s.pki, err = s.makeCAs(); err != nil {
		return err
	}
	if err := s.makeToken(); err != nil {
		return err
	}
	if err := s.makeLeaves(); err != nil {
		return err
	}
	if _, err := nodeinfo.Password(nodeinfo.PasswordFile); err != nil {
		return err
	}
	s.node = s.newNode()
	return s.openFront()
}

// resolveName returns the node's name, with its id when asked for.
func (s *Server) resolveName() (string, error) {
	if s.Options.Bool("with-node-id") {
		return "", fmt.Errorf("with-node-id is not part of the stand-in")
	}
	return nodeinfo.Name(s.Options.Get("node-name"))
}

func (s *Server) newNode() *agent.Node {
	return &agent.Node{
		Options: s.Options, DataDir: s.dataDir, Name: s.nodeName, IPs: s.nodeIPs,
		ClusterCIDR: s.network.clusterCIDR, ClusterDNS: s.network.dns, ClusterDomain: s.network.domain,
		Fail: s.fail,
	}
}

// bringUp starts what follows the API server, in order.
func (s *Server) bringUp(ctx context.Context) {
	runtimeReady := make(chan error, 1)
	if s.Options.Bool("disable-agent") {
		runtimeReady <- nil
	} else {
		go func() { runtimeReady <- s.node.StartRuntime(ctx) }()
	}
	if err := s.waitReady(ctx); err != nil {
		s.fail("kube-apiserver", err)
		return
	}
	logrus.Info("k3s is up and running")
	if err := s.Notify.Send("READY=1"); err != nil {
		logrus.Warnf("Failed to notify systemd: %v", err)
	}
	s.startControllers(ctx)
	go s.deployManifests(ctx)
	go s.forgetPasswords(ctx)
	if s.etcd != nil {
		go s.removeMembers(ctx)
	}
	if s.Options.Bool("disable-agent") {
		return
	}
	if err := <-runtimeReady; err != nil {
		s.fail("containerd", err)
		return
	}
	if err := s.node.Run(ctx); err != nil {
		s.fail("node", err)
		return
	}
	go s.labelNode(ctx)
}

func (s *Server) dir(elements ...string) string {
	return filepath.Join(append([]string{s.dataDir, "server"}, elements...)...)
}
