package certs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func newCA(t *testing.T, now time.Time) *CA {
	t.Helper()
	ca, err := NewCA("test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestRenewOnlyBelow120Days(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ca := newCA(t, start)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	leaf := Leaf{CommonName: "system:admin", Organizations: []string{"system:masters"}, Client: true}
	steps := []struct {
		days  int
		renew bool
	}{{0, true}, {1, false}, {244, false}, {246, true}, {247, false}}
	for _, step := range steps {
		reason, err := ca.Ensure(leaf, cert, key, start.AddDate(0, 0, step.days))
		if err != nil {
			t.Fatal(err)
		}
		if (reason != "") != step.renew {
			t.Errorf("day %d: reason %q, renewal expected: %v", step.days, reason, step.renew)
		}
	}
}

func TestChangedNamesRenewAndKeepTheKey(t *testing.T) {
	now := time.Now()
	ca := newCA(t, now)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	leaf := Leaf{CommonName: "kube-apiserver", Server: true, Names: []string{"localhost", "127.0.0.1", "::1", "localhost"}}
	if _, err := ca.Ensure(leaf, cert, key, now); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(key)
	if reason, _ := ca.Ensure(leaf, cert, key, now); reason != "" {
		t.Errorf("renewed for %q", reason)
	}
	leaf.Names = append(leaf.Names, "k3s.example")
	if reason, _ := ca.Ensure(leaf, cert, key, now); reason != "names changed" {
		t.Errorf("reason %q", reason)
	}
	after, _ := os.ReadFile(key)
	if !slices.Equal(before, after) {
		t.Error("the key must stay")
	}
	data, _ := os.ReadFile(cert)
	chain, err := ParseCerts(data)
	if err != nil || len(chain) != 2 || chain[0].VerifyHostname("k3s.example") != nil || chain[0].VerifyHostname("127.0.0.1") != nil {
		t.Errorf("chain %v %v", chain, err)
	}
	if reason, _ := newCA(t, now).Ensure(leaf, cert, key, now); reason != "signed by another CA" {
		t.Errorf("reason %q", reason)
	}
}

func TestSeededCAIsKept(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	first, made, err := LoadOrCreateCA(cert, key, "x", time.Now())
	if err != nil || !made {
		t.Fatal(made, err)
	}
	second, made, err := LoadOrCreateCA(cert, key, "x", time.Now())
	if err != nil || made || !first.Chain[0].Equal(second.Chain[0]) {
		t.Fatal(made, err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, _, err = LoadOrCreateCA(cert, key, "x", time.Now()); err == nil {
		t.Error("a certificate without its key must be refused")
	}
}
