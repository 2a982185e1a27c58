// Package join talks to a server's supervisor the way a joining node does:
// it trusts the CA that its token pins, and nothing else.
package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k3img.test/runtime/internal/token"
)

const (
	requestLimit = 20 * time.Second
	answerLimit  = 16 << 20
)

// Client is a checked connection to a cluster's supervisor.
type Client struct {
	URL    string
	Token  token.Token
	Bundle []byte // the cluster's server CA file, byte for byte
	Cert   *tls.Certificate

	http *http.Client
}

// StatusError is an answer that is not 200.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string { return e.Text }

// Connect fetches the server's CA and checks it against the token's hash
// before it sends anything that is secret. dial may be nil.
func Connect(ctx context.Context, server string, tok token.Token, dial func(context.Context, string, string) (net.Conn, error)) (*Client, error) {
	parsed, err := url.Parse(server)
	if err != nil || parsed.Scheme != "https" || parsed.Host == "" {
		return nil, fmt.Errorf("invalid server url %q: want https://HOST:PORT", server)
	}
	c := &Client{URL: "https://" + parsed.Host, Token: tok}
	// Anybody may know the CA: the hash, and then the handshake, prove it.
	open := newHTTP(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, dial)
	defer open.CloseIdleConnections()
	bundle, err := send(ctx, open, http.MethodGet, c.URL+"/cacerts", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	if err := tok.Check(bundle); err != nil {
		return nil, err
	}
	c.Bundle = bundle
	c.trust(nil, dial)
	if _, err := c.Get(ctx, "/cacerts"); err != nil {
		return nil, fmt.Errorf("failed to verify the CA: %w", err)
	}
	return c, nil
}

// WithCert returns a client that shows a certificate instead of the token.
func (c *Client) WithCert(cert tls.Certificate, dial func(context.Context, string, string) (net.Conn, error)) *Client {
	other := &Client{URL: c.URL, Bundle: c.Bundle, Cert: &cert}
	other.trust(&cert, dial)
	return other
}

func (c *Client) trust(cert *tls.Certificate, dial func(context.Context, string, string) (net.Conn, error)) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.Bundle)
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	c.http = newHTTP(config, dial)
}

func newHTTP(config *tls.Config, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	// A connection for each request: the server may be another one by the next.
	return &http.Client{Timeout: requestLimit, Transport: &http.Transport{TLSClientConfig: config, DialContext: dial, DisableKeepAlives: true}}
}

// Get asks for a path with the token's user, or the certificate.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.Do(ctx, http.MethodGet, path, nil, nil)
}

// Do sends one request.
func (c *Client) Do(ctx context.Context, method, path string, body []byte, headers map[string]string) ([]byte, error) {
	all := map[string]string{}
	for name, value := range headers {
		all[name] = value
	}
	if c.Cert == nil && c.Token.Password != "" {
		request := &http.Request{Header: http.Header{}}
		request.SetBasicAuth(c.Token.User, c.Token.Password)
		all["Authorization"] = request.Header.Get("Authorization")
	}
	return send(ctx, c.http, method, c.URL+path, body, all)
}

func send(ctx context.Context, client *http.Client, method, target string, body []byte, headers map[string]string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	if response.StatusCode != http.StatusOK {
		text := fmt.Sprintf("%s: %s: %s", target, response.Status, strings.TrimSpace(string(answer)))
		return nil, &StatusError{Code: response.StatusCode, Text: text}
	}
	return answer, nil
}
