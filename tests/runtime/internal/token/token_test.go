package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"k3img.test/runtime/internal/certs"
)

func TestParse(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	cases := map[string]Token{
		"secret":                                   {User: "server", Password: "secret"},
		" secret\n":                                {User: "server", Password: "secret"},
		"K10" + hash + "::node:pw":                 {CAHash: hash, User: "node", Password: "pw"},
		"K10::server:pw:with:colon":                {User: "server", Password: "pw:with:colon"},
		"abcdef.0123456789abcdef":                  {Password: "abcdef.0123456789abcdef"},
		"K10" + hash + "::abcdef.0123456789abcdef": {CAHash: hash, Password: "abcdef.0123456789abcdef"},
	}
	for text, want := range cases {
		got, err := Parse(text, "server")
		if err != nil || got != want {
			t.Errorf("%q: got %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "K10abc::server:pw", "K10::server", "K10" + hash} {
		if _, err := Parse(bad, "server"); err == nil {
			t.Errorf("%q must be refused", bad)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	text := "K10" + strings.Repeat("0f", 32) + "::server:pw"
	parsed, err := Parse(text, "node")
	if err != nil || parsed.String() != text {
		t.Errorf("%v %v", parsed, err)
	}
}

func TestHashOfOneCertificateIsTheFile(t *testing.T) {
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bundle := append([]byte("# a comment counts\n"), ca.BundlePEM()...)
	sum := sha256.Sum256(bundle)
	got, err := HashCA(bundle)
	if err != nil || got != hex.EncodeToString(sum[:]) {
		t.Errorf("%s %v", got, err)
	}
	if err := (Token{CAHash: got}).Check(bundle); err != nil {
		t.Error(err)
	}
	if err := (Token{CAHash: got}).Check(ca.BundlePEM()); err == nil {
		t.Error("another file must not match")
	}
}

func TestHashOfAChainIsItsRoot(t *testing.T) {
	root, err := certs.NewCA("root", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := root.SignCA("leaf", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(root.BundlePEM())
	sum := sha256.Sum256(block.Bytes)
	got, err := HashCA(leaf.BundlePEM())
	if err != nil || got != hex.EncodeToString(sum[:]) {
		t.Errorf("%s %v", got, err)
	}
}
