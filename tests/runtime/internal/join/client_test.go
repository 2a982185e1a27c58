package join

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/token"
)

// cluster is a server that shows its own certificate as the CA, and counts
// the passwords that it was told.
type cluster struct {
	*httptest.Server
	bundle []byte
	told   []string
}

func serve(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			c.told = append(c.told, password)
		}
		switch {
		case r.URL.Path == "/cacerts":
			_, _ = w.Write(c.bundle)
		case c.told[len(c.told)-1] != "right":
			http.Error(w, "not authorized", http.StatusUnauthorized)
		default:
			_, _ = w.Write([]byte("{}"))
		}
	}))
	t.Cleanup(c.Close)
	c.bundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	return c
}

func pinned(t *testing.T, c *cluster, password string) token.Token {
	t.Helper()
	hash, err := token.HashCA(c.bundle)
	if err != nil {
		t.Fatal(err)
	}
	return token.Token{CAHash: hash, User: "node", Password: password}
}

func TestTheTokenIsShownToThePinnedCAOnly(t *testing.T) {
	c := serve(t)
	wrong := token.Token{CAHash: strings.Repeat("0", 64), User: "node", Password: "right"}
	_, err := Connect(context.Background(), c.URL, wrong, nil)
	if err == nil || !strings.Contains(err.Error(), "does not match the Cluster CA certificate hash") {
		t.Fatalf("got %v", err)
	}
	if len(c.told) != 0 {
		t.Fatal("the password was sent to a server that did not prove itself")
	}
	client, err := Connect(context.Background(), c.URL, pinned(t, c, "right"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(context.Background(), Config); err != nil {
		t.Fatal(err)
	}
}

func TestAReplayedCAIsNoProof(t *testing.T) {
	fake := serve(t)
	ca, err := certs.NewCA("another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fake.bundle = ca.BundlePEM() // anybody can show it; its key is elsewhere
	hash, err := token.HashCA(fake.bundle)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Connect(context.Background(), fake.URL, token.Token{CAHash: hash, User: "node", Password: "right"}, nil)
	if err == nil || !strings.Contains(err.Error(), "failed to verify the CA") {
		t.Fatalf("got %v", err)
	}
}

func TestARefusalHasItsStatus(t *testing.T) {
	c := serve(t)
	client, err := Connect(context.Background(), c.URL, pinned(t, c, "wrong"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Get(context.Background(), Config)
	var status *StatusError
	if !errors.As(err, &status) || status.Code != http.StatusUnauthorized {
		t.Fatalf("got %v", err)
	}
}

func TestURLsAreChecked(t *testing.T) {
	for _, text := range []string{"", "http://a:6443", "a:6443"} {
		if _, err := Connect(context.Background(), text, token.Token{}, nil); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
