package balancer

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// named listens and says its name to everybody.
func named(t *testing.T, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, name)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func said(t *testing.T, b *Balancer) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := b.Dial(ctx, "", "")
	if err != nil {
		return ""
	}
	defer conn.Close()
	data, _ := io.ReadAll(conn)
	return string(data)
}

func TestTheNextServerAnswersWhenOneIsGone(t *testing.T) {
	first, second, fallback := named(t, "first"), named(t, "second"), named(t, "fallback")
	b := New(fallback.Addr().String(), filepath.Join(t.TempDir(), "servers.json"))
	if got := said(t, b); got != "fallback" {
		t.Fatalf("before any server is known: %q", got)
	}
	b.Set([]string{first.Addr().String(), second.Addr().String()})
	if got := said(t, b); got != "first" {
		t.Fatalf("got %q", got)
	}
	_ = first.Close()
	if got := said(t, b); got != "second" {
		t.Fatalf("got %q", got)
	}
	if b.servers[0] != second.Addr().String() {
		t.Fatal("the server that answers is not asked first")
	}
	_ = second.Close()
	if got := said(t, b); got != "fallback" {
		t.Fatalf("got %q", got)
	}
	_ = fallback.Close()
	if got := said(t, b); got != "" {
		t.Fatalf("nobody is there, but %q answered", got)
	}
}

func TestServersAreRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "servers.json")
	other := named(t, "other")
	New("127.0.0.1:1", file).Set([]string{other.Addr().String()})
	if got := said(t, New("127.0.0.1:1", file)); got != "other" {
		t.Fatalf("after a restart: %q", got)
	}
	if got := New("127.0.0.1:2", file).servers; len(got) != 0 {
		t.Fatalf("of another cluster: %v", got)
	}
}

func TestAnEmptyListChangesNothing(t *testing.T) {
	b := New("127.0.0.1:1", filepath.Join(t.TempDir(), "servers.json"))
	b.Set([]string{"127.0.0.1:5"})
	b.Set(nil)
	if len(b.servers) != 1 {
		t.Fatal("a server that knows no servers took all of them away")
	}
}
