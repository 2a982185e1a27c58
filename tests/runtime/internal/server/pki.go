package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/token"
)

// pki holds the cluster's signing certificates.
type pki struct {
	server, client, requestHeader, etcdPeer, etcdServer *certs.CA
}

// makeCAs loads the CAs that are in place and makes the missing ones.
func (s *Server) makeCAs() (*pki, error) {
	set := &pki{}
	now := time.Now()
	for _, entry := range []struct {
		file, name string
		ca         **certs.CA
	}{
		{"server-ca", "k3s-server-ca", &set.server},
		{"client-ca", "k3s-client-ca", &set.client},
		{"request-header-ca", "k3s-request-header-ca", &set.requestHeader},
		{"etcd/peer-ca", "etcd-peer-ca", &set.etcdPeer},
		{"etcd/server-ca", "etcd-server-ca", &set.etcdServer},
	} {
		ca, made, err := certs.LoadOrCreateCA(s.dir("tls", entry.file+".crt"), s.dir("tls", entry.file+".key"), entry.name, now)
		if err != nil {
			return nil, err
		}
		if made {
			logrus.Infof("Made a new CA %s", entry.file)
		}
		*entry.ca = ca
	}
	if err := certs.EnsureServiceKey(s.dir("tls", "service.key")); err != nil {
		return nil, err
	}
	for file, data := range map[string][]byte{
		s.dir("tls", "client-ca.nochain.crt"):           set.client.SigningPEM(),
		s.dir("tls", "server-ca.nochain.crt"):           set.server.SigningPEM(),
		filepath.Join(s.dataDir, "agent/client-ca.crt"): set.client.BundlePEM(),
		filepath.Join(s.dataDir, "agent/server-ca.crt"): set.server.BundlePEM(),
	} {
		if err := certs.WriteFile(file, data, 0o644); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// makeToken settles the server's and the agents' tokens and writes them in
// their secure form.
func (s *Server) makeToken() error {
	configured, err := s.readSecret("token")
	if err != nil {
		return err
	}
	file := s.dir("token")
	var stored token.Token
	if data, err := os.ReadFile(file); err == nil {
		if stored, err = token.Parse(string(data), "server"); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case configured != "":
		if s.token, err = token.Parse(configured, "server"); err != nil {
			return err
		}
	case stored.Password != "":
		s.token = stored
	default:
		s.token = token.Token{User: "server", Password: token.Random(16)}
	}
	bundle := s.pki.server.BundlePEM()
	if raw, err := os.ReadFile(s.dir("tls", "server-ca.crt")); err == nil {
		bundle = raw // the hash counts every byte of the file
	}
	if err := s.token.Check(bundle); err != nil {
		return err
	}
	if s.token.CAHash, err = token.HashCA(bundle); err != nil {
		return err
	}
	s.token.User = "server"
	if err := certs.WriteFile(file, []byte(s.token.String()+"\n"), 0o600); err != nil {
		return err
	}
	return s.writeAgentToken()
}

// writeAgentToken writes node-token and agent-token: their own text when an
// agent token is set, else links to the server's.
func (s *Server) writeAgentToken() error {
	secret, err := s.readSecret("agent-token")
	if err != nil {
		return err
	}
	if err := link("token", s.dir("node-token")); err != nil {
		return err
	}
	if secret == "" {
		s.agentPassword = s.token.Password
		return link("token", s.dir("agent-token"))
	}
	agentToken, err := token.Parse(secret, "node")
	if err != nil {
		return fmt.Errorf("agent-token: %w", err)
	}
	agentToken.CAHash, agentToken.User = s.token.CAHash, "node"
	s.agentPassword = agentToken.Password
	return certs.WriteFile(s.dir("agent-token"), []byte(agentToken.String()+"\n"), 0o600)
}

// readSecret reads an option or the file of its `-file` twin, for which it
// waits up to four minutes, as k3s does.
func (s *Server) readSecret(name string) (string, error) {
	if value := s.Options.Get(name); value != "" {
		return value, nil
	}
	file := s.Options.Get(name + "-file")
	if file == "" {
		return "", nil
	}
	for deadline := time.Now().Add(4 * time.Minute); ; {
		data, err := os.ReadFile(file)
		if err == nil {
			return strings.TrimSpace(string(data)), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return "", fmt.Errorf("%s-file: %w", name, err)
		}
		logrus.Infof("Waiting for %s to be available", file)
		time.Sleep(2 * time.Second)
	}
}

func link(target, path string) error {
	if current, err := os.Readlink(path); err == nil && current == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
