// Package certs makes and renews the certificates of a node: signing CAs that
// may have been put in place beforehand, and leaves that live for a year.
package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	caLife = 3650 * 24 * time.Hour
	// backdate makes new certificates valid on peers whose clock is a little behind.
	backdate = time.Hour
)

// CA is a signing certificate with its key and the chain above it.
type CA struct {
	Chain []*x509.Certificate // the signing certificate first
	Key   crypto.Signer
}

// NewCA makes a self-signed CA.
func NewCA(name string, now time.Time) (*CA, error) {
	return makeCA(name, now, nil)
}

// SignCA makes an intermediate CA below this one.
func (ca *CA) SignCA(name string, now time.Time) (*CA, error) {
	return makeCA(name, now, ca)
}

func makeCA(name string, now time.Time, parent *CA) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(caLife).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	issuer, issuerKey, above := template, crypto.Signer(key), []*x509.Certificate(nil)
	if parent != nil {
		issuer, issuerKey, above = parent.Chain[0], parent.Key, parent.Chain
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{Chain: append([]*x509.Certificate{cert}, above...), Key: key}, nil
}

// LoadOrCreateCA reads a CA's pair of files, or makes both when neither is
// there. One without the other is an error: it would orphan the cluster.
func LoadOrCreateCA(certFile, keyFile, name string, now time.Time) (*CA, bool, error) {
	certPEM, certErr := os.ReadFile(certFile)
	keyPEM, keyErr := os.ReadFile(keyFile)
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		ca, err := NewCA(name, now)
		if err != nil {
			return nil, false, err
		}
		return ca, true, ca.save(certFile, keyFile)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, false, fmt.Errorf("both files of a CA must be there: %w", err)
	}
	ca, err := parseCA(certPEM, keyPEM)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", certFile, err)
	}
	return ca, false, nil
}

func parseCA(certPEM, keyPEM []byte) (*CA, error) {
	chain, err := ParseCerts(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !chain[0].IsCA {
		return nil, fmt.Errorf("%s is not a CA certificate", chain[0].Subject)
	}
	if !samePublicKey(chain[0].PublicKey, key.Public()) {
		return nil, fmt.Errorf("the key does not belong to the certificate")
	}
	return &CA{Chain: chain, Key: key}, nil
}

func (ca *CA) save(certFile, keyFile string) error {
	key, err := KeyPEM(ca.Key)
	if err != nil {
		return err
	}
	if err := WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	return WriteFile(certFile, ca.BundlePEM(), 0o644)
}

// BundlePEM is the signing certificate and the chain above it.
func (ca *CA) BundlePEM() []byte {
	var out bytes.Buffer
	for _, cert := range ca.Chain {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return out.Bytes()
}

// SigningPEM is the signing certificate alone.
func (ca *CA) SigningPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Chain[0].Raw})
}

// ParseCerts reads every certificate of a PEM file.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in the file")
	}
	return certs, nil
}

// ParseKey reads an EC, RSA or PKCS#8 private key.
func ParseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			return x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, errors.New("no private key in the file")
}

// KeyPEM writes a private key in the form that its kind usually has.
func KeyPEM(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// EnsureServiceKey makes the key that signs service account tokens.
func EnsureServiceKey(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	data, err := KeyPEM(key)
	if err != nil {
		return err
	}
	return WriteFile(file, data, 0o600)
}

// WriteFile writes a file so that a power cut leaves the old or the new one.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return os.Rename(temporary, path)
}

func serial() *big.Int {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		panic(err)
	}
	return number
}

func samePublicKey(a, b any) bool {
	type comparable interface{ Equal(crypto.PublicKey) bool }
	key, ok := a.(comparable)
	return ok && key.Equal(b)
}
