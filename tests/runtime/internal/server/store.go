package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	kinetls "github.com/k3s-io/kine/pkg/tls"
	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/parts"
	"k3img.test/runtime/internal/token"
)

// startStore starts the datastore that the settings ask for: an etcd that is
// already there wins over every setting. start bounds the start, run the life.
func (s *Server) startStore(start, run context.Context) (wait func(), err error) {
	endpoint := s.Options.Get("datastore-endpoint")
	join := s.Options.Get("server")
	switch {
	case s.Options.Bool("cluster-reset"):
		return nil, fmt.Errorf("cluster-reset is not part of this stand-in yet")
	case s.hasEtcd():
		return s.startEtcd(start, run)
	case endpoint == "" && join != "":
		return nil, fmt.Errorf("joining the servers at %s is not part of this stand-in yet", join)
	case endpoint == "" && s.Options.Bool("cluster-init"):
		if _, err := os.Stat(s.dir("db", "state.db")); err == nil {
			return nil, fmt.Errorf("converting an sqlite datastore to etcd is not part of this stand-in")
		}
		return s.startEtcd(start, run)
	}
	return s.startKine(run, endpoint)
}

// hasEtcd says whether this server is an etcd member already.
func (s *Server) hasEtcd() bool {
	_, err := os.Stat(s.dir("db", "etcd", "member", "wal"))
	return err == nil
}

// startKine opens the endpoint; the default is sqlite with k3s' parameters.
func (s *Server) startKine(run context.Context, endpoint string) (func(), error) {
	if endpoint == "" {
		endpoint = "sqlite://" + s.dir("db", "state.db") + "?" + parts.SQLiteParams
	}
	kind, _, _ := strings.Cut(endpoint, "://")
	logrus.Infof("Datastore: %s", kind) // never the endpoint: it may hold a password
	store, wait, err := parts.Kine(run, endpoint, s.dir("kine.sock"), kinetls.Config{
		CAFile:   s.Options.Get("datastore-cafile"),
		CertFile: s.Options.Get("datastore-certfile"),
		KeyFile:  s.Options.Get("datastore-keyfile"),
	})
	s.store = store
	return wait, err
}

// startEtcd starts the embedded etcd, as the first member if it is new.
func (s *Server) startEtcd(start, run context.Context) (func(), error) {
	name, err := s.etcdName()
	if err != nil {
		return nil, err
	}
	file := s.dir("db", "etcd", "config")
	if err := s.writeEtcdConfig(file, name); err != nil {
		return nil, err
	}
	logrus.Infof("Datastore: embedded etcd, member %s", name)
	if err := s.Notify.Send("STATUS=waiting for etcd"); err != nil {
		logrus.Debugf("notify: %v", err)
	}
	type result struct {
		failed <-chan error
		wait   func()
		err    error
	}
	done := make(chan result, 1)
	go func() {
		failed, wait, err := parts.Etcd(run, file)
		done <- result{failed, wait, err}
	}()
	select {
	case <-start.Done():
		return nil, start.Err()
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		go func() {
			if err := <-r.failed; err != nil && run.Err() == nil {
				s.fail("etcd", err)
			}
		}()
		s.store = parts.Store{
			Endpoints: []string{"https://127.0.0.1:2379"}, Shared: true,
			CAFile: s.dir("tls", "etcd", "server-ca.crt"), CertFile: s.dir("tls", "etcd", "client.crt"), KeyFile: s.dir("tls", "etcd", "client.key"),
		}
		return r.wait, nil
	}
}

// etcdName returns the member's name, made once: the node's with 8 hex digits.
func (s *Server) etcdName() (string, error) {
	file := s.dir("db", "etcd", "name")
	data, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := s.nodeName + "-" + token.Random(4)
	return name, certs.WriteFile(file, []byte(name), 0o600)
}

// writeEtcdConfig writes etcd's configuration; etcd-arg replaces its keys.
func (s *Server) writeEtcdConfig(file, name string) error {
	tls := func(base string, ca string) map[string]any {
		return map[string]any{
			"cert-file": s.dir("tls", "etcd", base+".crt"), "key-file": s.dir("tls", "etcd", base+".key"),
			"trusted-ca-file": s.dir("tls", "etcd", ca), "client-cert-auth": true,
		}
	}
	client := "https://" + bracket(s.nodeIP) + ":2379"
	peer := "https://" + bracket(s.nodeIP) + ":2380"
	metrics := "http://127.0.0.1:2381"
	if s.Options.Bool("etcd-expose-metrics") {
		metrics += ",http://" + bracket(s.nodeIP) + ":2381"
	}
	config := map[string]any{
		"name": name, "data-dir": filepath.Dir(file),
		"listen-client-urls": "https://127.0.0.1:2379," + client, "advertise-client-urls": client,
		"listen-peer-urls": "https://127.0.0.1:2380," + peer, "initial-advertise-peer-urls": peer,
		"listen-metrics-urls": metrics, "listen-client-http-urls": "https://127.0.0.1:2382",
		"initial-cluster": name + "=" + peer, "initial-cluster-state": "new", "initial-cluster-token": "k3img-standin",
		"client-transport-security": tls("server-client", "server-ca.crt"),
		"peer-transport-security":   tls("peer-server-client", "peer-ca.crt"),
		"snapshot-count":            10000, "heartbeat-interval": 500, "election-timeout": 5000,
		"log-level": "warn", "logger": "zap", "log-outputs": []string{"stderr"},
		"watch-progress-notify-interval": 5000000000,
	}
	for _, arg := range s.Options.List("etcd-arg") {
		key, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		var parsed any
		if err := yaml.Unmarshal([]byte(value), &parsed); err != nil {
			return fmt.Errorf("etcd-arg %s: %w", arg, err)
		}
		config[key] = parsed
	}
	data, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return certs.WriteFile(file, data, 0o600)
}

// bracket puts an IPv6 address into brackets for a URL.
func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}
