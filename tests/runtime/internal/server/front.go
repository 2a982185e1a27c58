package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// front is the supervisor's port. It answers k3s' own paths from the start;
// when the API server is ready it takes the listener over, with the same
// paths in front of its own.
type front struct {
	listener *net.TCPListener
	early    *http.Server
	accept   *pausable
}

// pausable is a listener that can stop accepting without being closed.
type pausable struct {
	*net.TCPListener
	paused chan struct{}
}

// Accept returns net.ErrClosed once the listener is paused.
func (p *pausable) Accept() (net.Conn, error) {
	conn, err := p.TCPListener.Accept()
	if err == nil {
		return conn, nil
	}
	select {
	case <-p.paused:
		return nil, net.ErrClosed
	default:
		return nil, err
	}
}

// Close leaves the listener open: the API server will use it.
func (p *pausable) Close() error { return nil }

// openFront opens the port and serves the supervisor's paths on it.
func (s *Server) openFront() error {
	bind := s.Options.Get("bind-address")
	if bind == "" {
		bind = "::"
		if net.ParseIP(s.nodeIP).To4() != nil {
			bind = "0.0.0.0"
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(bind, s.port))
	if err != nil {
		return err
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listener on %s is no TCP listener", listener.Addr())
	}
	certificate, err := tls.LoadX509KeyPair(s.dir("tls", "serving-kube-apiserver.crt"), s.dir("tls", "serving-kube-apiserver.key"))
	if err != nil {
		return err
	}
	s.front = &front{listener: tcp, accept: &pausable{TCPListener: tcp, paused: make(chan struct{})}}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.pki.client.BundlePEM())
	s.front.early = &http.Server{
		Handler:           s.ownPaths(http.HandlerFunc(notReady)),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that do not trust the CA yet
	}
	secure := tls.NewListener(s.front.accept, &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, ClientCAs: pool,
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	go func() {
		if err := s.front.early.Serve(secure); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			logrus.Warnf("The early listener ended: %v", err)
		}
	}()
	logrus.Infof("Supervisor listens on %s", listener.Addr())
	return nil
}

// takeOver stops the early server so that the API server can accept.
func (f *front) takeOver() {
	close(f.accept.paused)
	_ = f.listener.SetDeadline(time.Now())
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if f.early.Shutdown(ctx) != nil {
		_ = f.early.Close()
	}
	_ = f.listener.SetDeadline(time.Time{})
}

// ownPaths answers the supervisor's paths before any other handler sees them.
func (s *Server) ownPaths(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "pong")
	})
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) {
		bundle, err := os.ReadFile(s.dir("tls", "server-ca.crt"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bundle)
	})
	s.supervisorPaths(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, pattern := mux.Handler(r); pattern != "" {
			handler.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func notReady(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "apiserver not ready", http.StatusServiceUnavailable)
}
