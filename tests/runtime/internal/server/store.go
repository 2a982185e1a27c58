package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	kinetls "github.com/k3s-io/kine/pkg/tls"
	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/parts"
	"k3img.test/runtime/internal/token"
)

// ErrReset ends a server that was told to reset its cluster, and did.
var ErrReset = errors.New("the cluster was reset")

// startStore starts the datastore that the settings ask for: an etcd that is
// already there wins over every setting. start bounds the start, run the life.
func (s *Server) startStore(start, run context.Context) (wait func(), err error) {
	endpoint := s.Options.Get("datastore-endpoint")
	switch {
	case s.Options.Bool("cluster-reset"):
		return nil, s.resetCluster(start)
	case s.hasEtcd():
		return s.startEtcd(start, run, nil)
	case s.remote != nil:
		return s.joinEtcd(start, run)
	case endpoint == "" && s.Options.Bool("cluster-init"):
		if _, err := os.Stat(s.dir("db", "state.db")); err == nil {
			return nil, fmt.Errorf("converting an sqlite datastore to etcd is not part of this stand-in")
		}
		return s.startEtcd(start, run, nil)
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

// startEtcd starts the embedded etcd: as it was, as the first member, or with
// the settings of a joining one.
func (s *Server) startEtcd(start, run context.Context, joining map[string]any) (func(), error) {
	name, err := s.etcdName()
	if err != nil {
		return nil, err
	}
	file := s.dir("db", "etcd", "config")
	if err := s.writeEtcdConfig(file, name, joining); err != nil {
		return nil, err
	}
	logrus.Infof("Datastore: embedded etcd, member %s", name)
	if err := s.Notify.Send("STATUS=waiting for etcd"); err != nil {
		logrus.Debugf("notify: %v", err)
	}
	type result struct {
		member *parts.EtcdMember
		err    error
	}
	done := make(chan result, 1)
	go func() {
		member, err := parts.Etcd(run, file, false)
		done <- result{member, err}
	}()
	select {
	case <-start.Done():
		return nil, start.Err()
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		go func() {
			if err := <-r.member.Failed(); err != nil && run.Err() == nil {
				s.fail("etcd", err)
			}
		}()
		s.etcd = r.member
		s.store = localEtcd(s.dir())
		return r.member.Wait, nil
	}
}

// localEtcd is this machine's member, by the certificates below dir.
func localEtcd(dir string) parts.Store {
	tls := filepath.Join(dir, "tls", "etcd")
	return parts.Store{
		Endpoints: []string{"https://127.0.0.1:2379"}, Shared: true,
		CAFile: filepath.Join(tls, "server-ca.crt"), CertFile: filepath.Join(tls, "client.crt"), KeyFile: filepath.Join(tls, "client.key"),
	}
}

// resetCluster is `k3s server --cluster-reset`: this server becomes the only
// member, with the data that it has, and ends.
func (s *Server) resetCluster(ctx context.Context) error {
	if !s.hasEtcd() {
		return fmt.Errorf("cluster-reset: this server has no etcd data")
	}
	if s.Options.Get("server") != "" {
		return fmt.Errorf("cluster-reset: the server option must not be set")
	}
	flag := s.dir("db", "reset-flag")
	if _, err := os.Stat(flag); err == nil {
		return fmt.Errorf("cluster-reset was successfully performed, please remove the cluster-reset flag and start k3s normally, if you need to perform another cluster reset, you must first manually delete the file at %s", flag)
	}
	name, err := s.etcdName()
	if err != nil {
		return err
	}
	file := s.dir("db", "etcd", "config")
	if err := s.writeEtcdConfig(file, name, nil); err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	member, err := parts.Etcd(run, file, true)
	if err != nil {
		stop()
		return err
	}
	err = member.Readdress(ctx, name, s.peerURL())
	stop()
	member.Wait()
	if err != nil {
		return err
	}
	if err := certs.WriteFile(flag, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	logrus.Info("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return ErrReset
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
func (s *Server) writeEtcdConfig(file, name string, more map[string]any) error {
	tls := func(base string, ca string) map[string]any {
		return map[string]any{
			"cert-file": s.dir("tls", "etcd", base+".crt"), "key-file": s.dir("tls", "etcd", base+".key"),
			"trusted-ca-file": s.dir("tls", "etcd", ca), "client-cert-auth": true,
		}
	}
	client := "https://" + bracket(s.nodeIP) + ":2379"
	peer := s.peerURL()
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
	for key, value := range more {
		config[key] = value
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
