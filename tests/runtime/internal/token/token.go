// Package token reads and writes cluster tokens in k3s' forms: a bare
// password, or `K10<hash of the CA>::<user>:<password>`.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"k3img.test/runtime/internal/certs"
)

const prefix = "K10"

var bootstrapForm = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// Token is a token taken apart.
type Token struct {
	CAHash   string // 64 hex digits, or empty when the token does not pin the CA
	User     string // "server" or "node"; empty for a bootstrap token
	Password string
}

// Parse reads a token in any of its forms. A bare password gets the user.
func Parse(text, user string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, fmt.Errorf("token must not be empty")
	}
	rest, secure := strings.CutPrefix(text, prefix)
	if !secure {
		if bootstrapForm.MatchString(text) {
			return Token{Password: text}, nil
		}
		return Token{User: user, Password: text}, nil
	}
	hash, credentials, ok := strings.Cut(rest, "::")
	if !ok {
		return Token{}, fmt.Errorf("invalid token format: no :: after the hash")
	}
	if hash != "" {
		if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size {
			return Token{}, fmt.Errorf("invalid token CA hash length")
		}
	}
	if bootstrapForm.MatchString(credentials) {
		return Token{CAHash: hash, Password: credentials}, nil
	}
	name, password, ok := strings.Cut(credentials, ":")
	if !ok || name == "" || password == "" {
		return Token{}, fmt.Errorf("invalid token format: want K10<hash>::<user>:<password>")
	}
	return Token{CAHash: hash, User: name, Password: password}, nil
}

// String writes the token in its secure form.
func (t Token) String() string {
	if t.User == "" {
		return prefix + t.CAHash + "::" + t.Password
	}
	return prefix + t.CAHash + "::" + t.User + ":" + t.Password
}

// HashCA returns the hash by which tokens pin a CA: the sha256 of the file
// when it holds one certificate, else of the root of the first one's chain.
func HashCA(bundle []byte) (string, error) {
	found, err := certs.ParseCerts(bundle)
	if err != nil {
		return "", err
	}
	if len(found) == 1 {
		return digest(bundle), nil
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range found[1:] {
		if cert.CheckSignatureFrom(cert) == nil {
			roots.AddCert(cert)
		} else {
			intermediates.AddCert(cert)
		}
	}
	chains, err := found[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return digest(bundle), nil // as k3s: outside the CA's validity the whole file counts
	}
	chain := chains[0]
	return digest(chain[len(chain)-1].Raw), nil
}

// Check compares the token's hash with a CA bundle; a token without a hash
// trusts any CA.
func (t Token) Check(bundle []byte) error {
	if t.CAHash == "" {
		return nil
	}
	hash, err := HashCA(bundle)
	if err != nil {
		return err
	}
	if hash != t.CAHash {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", t.CAHash, hash)
	}
	return nil
}

// Random returns n random bytes in hex.
func Random(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // crypto/rand never fails; it ends the program instead
	return hex.EncodeToString(raw)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
