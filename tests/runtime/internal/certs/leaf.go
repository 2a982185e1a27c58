package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

const (
	leafLife = 365 * 24 * time.Hour
	// renewBefore is how much life a leaf must have left at a start to be kept.
	renewBefore = 120 * 24 * time.Hour
)

// Leaf describes a certificate to be issued.
type Leaf struct {
	CommonName    string
	Organizations []string
	Names         []string // DNS names and addresses; only for serving
	Client        bool
	Server        bool
}

// Ensure keeps the pair of files when it still fits, else issues a new one;
// the key is kept. It returns why the certificate was issued, or "".
func (ca *CA) Ensure(leaf Leaf, certFile, keyFile string, now time.Time) (string, error) {
	reason := ca.renewReason(leaf, certFile, keyFile, now)
	if reason == "" {
		return "", nil
	}
	key, err := loadOrCreateKey(keyFile)
	if err != nil {
		return reason, err
	}
	data, err := ca.Issue(leaf, key.Public(), now)
	if err != nil {
		return reason, err
	}
	return reason, WriteFile(certFile, data, 0o644)
}

// renewReason says why a certificate cannot be kept, or "" when it can.
func (ca *CA) renewReason(leaf Leaf, certFile, keyFile string, now time.Time) string {
	data, err := os.ReadFile(certFile)
	if err != nil {
		return "missing"
	}
	chain, err := ParseCerts(data)
	if err != nil {
		return "unreadable"
	}
	keyData, err := os.ReadFile(keyFile)
	if err != nil {
		return "key missing"
	}
	key, err := ParseKey(keyData)
	if err != nil || !samePublicKey(chain[0].PublicKey, key.Public()) {
		return "key of another certificate"
	}
	return ca.mismatch(leaf, chain[0], now)
}

// mismatch compares an existing certificate with what is wanted.
func (ca *CA) mismatch(leaf Leaf, cert *x509.Certificate, now time.Time) string {
	if cert.CheckSignatureFrom(ca.Chain[0]) != nil {
		return "signed by another CA"
	}
	if left := cert.NotAfter.Sub(now); left < renewBefore {
		return fmt.Sprintf("%d days left", int(left.Hours()/24))
	}
	if cert.Subject.CommonName != leaf.CommonName || !slices.Equal(sorted(cert.Subject.Organization), sorted(leaf.Organizations)) {
		return "issued to another subject"
	}
	if !slices.Equal(certNames(cert), sorted(leaf.Names)) {
		return "names changed"
	}
	return ""
}

// Issue signs a certificate for a public key and returns it with the chain.
func (ca *CA) Issue(leaf Leaf, public crypto.PublicKey, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		NotBefore:    ca.Chain[0].NotBefore.UTC(), // as k3s: peers whose clocks are behind believe it too
		NotAfter:     earlier(now.Add(leafLife), ca.Chain[0].NotAfter).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if leaf.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if leaf.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range sorted(leaf.Names) {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Chain[0], public, ca.Key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	out.Write(ca.BundlePEM())
	return out.Bytes(), nil
}

// Request makes a certificate request for the key in a file, which is made
// when it is missing. Who it is for, the server decides.
func Request(keyFile string) ([]byte, error) {
	key, err := loadOrCreateKey(keyFile)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ParseRequest reads a request and proves that its sender has the key.
func ParseRequest(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("not a PEM certificate request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return request.PublicKey, nil
}

func loadOrCreateKey(file string) (crypto.Signer, error) {
	if data, err := os.ReadFile(file); err == nil {
		if key, err := ParseKey(data); err == nil {
			return key, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := KeyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, WriteFile(file, data, 0o600)
}

// certNames returns a certificate's names the way Leaf.Names holds them.
func certNames(cert *x509.Certificate) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return sorted(names)
}

// sorted returns the distinct names in order, addresses in their short form.
func sorted(names []string) []string {
	out := []string{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String()
		}
		if name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
