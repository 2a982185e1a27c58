// Package balancer is an agent's local way to the API: whatever server answers.
package balancer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/certs"
)

const dialLimit = 4 * time.Second

// Balancer remembers the servers, so that an agent finds another one after a
// restart.
type Balancer struct {
	fallback string // HOST:PORT of the configured server; its name may move
	file     string

	mu      sync.Mutex
	servers []string // the one that answered last comes first
	pairs   map[net.Conn]string
}

// New reads the servers that an earlier run knew of this cluster.
func New(fallback, file string) *Balancer {
	b := &Balancer{fallback: fallback, file: file, pairs: map[net.Conn]string{}}
	var kept struct {
		Fallback string   `json:"serverURL"`
		Servers  []string `json:"servers"`
	}
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &kept) == nil && kept.Fallback == fallback {
		b.servers = kept.Servers
	}
	return b
}

// Set takes the cluster's present servers; connections to others are ended.
func (b *Balancer) Set(servers []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(servers) == 0 || sameSet(b.servers, servers) {
		return
	}
	kept := slices.DeleteFunc(slices.Clone(b.servers), func(s string) bool { return !slices.Contains(servers, s) })
	for _, server := range servers {
		if !slices.Contains(kept, server) {
			kept = append(kept, server)
		}
	}
	b.servers = kept
	for conn, server := range b.pairs {
		if server != b.fallback && !slices.Contains(kept, server) {
			_ = conn.Close()
		}
	}
	logrus.Infof("Servers of the cluster: %v", kept)
	data, err := json.Marshal(map[string]any{"serverURL": b.fallback, "servers": kept})
	if err == nil {
		err = certs.WriteFile(b.file, data, 0o600)
	}
	if err != nil {
		logrus.Warnf("Failed to keep the servers: %v", err)
	}
}

func sameSet(a, b []string) bool {
	one, other := slices.Clone(a), slices.Clone(b)
	slices.Sort(one)
	slices.Sort(other)
	return slices.Equal(one, other)
}

// Dial connects to the first server that answers; the address is not used.
func (b *Balancer) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, _, err := b.connect(ctx)
	return conn, err
}

func (b *Balancer) connect(ctx context.Context) (net.Conn, string, error) {
	b.mu.Lock()
	candidates := append(slices.Clone(b.servers), b.fallback)
	b.mu.Unlock()
	var problems []error
	for _, server := range candidates {
		conn, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", server)
		if err == nil {
			b.prefer(server)
			return conn, server, nil
		}
		problems = append(problems, err)
	}
	return nil, "", errors.Join(problems...)
}

// prefer puts a server that answered in front of those that did not.
func (b *Balancer) prefer(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := slices.Index(b.servers, server); at > 0 {
		b.servers = append([]string{server}, slices.Delete(slices.Clone(b.servers), at, at+1)...)
	}
}

// Serve passes connections of this node's own programs on until ctx ends.
func (b *Balancer) Serve(ctx context.Context, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go b.pass(ctx, conn)
		}
	}()
	return nil
}

func (b *Balancer) pass(ctx context.Context, near net.Conn) {
	defer near.Close()
	far, server, err := b.connect(ctx)
	if err != nil {
		logrus.Debugf("No server answers: %v", err)
		return
	}
	defer far.Close()
	b.mu.Lock()
	b.pairs[far] = server
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.pairs, far)
		b.mu.Unlock()
	}()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}
