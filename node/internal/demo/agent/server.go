package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Server answers sessions. Serve may be called for any number of listeners;
// Close ends them all and waits for their goroutines.
type Server struct {
	password string
	tls      *tls.Config
	trust    *tls.Config
	log      *slog.Logger
	web      *http.Server

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
	wg     sync.WaitGroup
}

// serverName is in the run's certificate.
const serverName = "server.demo.invalid"

// NewServer makes a server with a fresh certificate. password opens its SSH.
func NewServer(password string, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cert, pool, err := certificate()
	if err != nil {
		return nil, fmt.Errorf("demo server: certificate: %w", err)
	}
	s := &Server{
		password: password, log: log, open: make(map[io.Closer]struct{}),
		tls:   &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		trust: &tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS13},
	}
	s.web = &http.Server{
		Handler: http.HandlerFunc(page), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Trust is the client's side of the server's certificate.
func (s *Server) Trust() *tls.Config { return s.trust }

func certificate() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool, nil
}

// Serve answers connections of a kind on ln until Close. It does not block.
func (s *Server) Serve(kind scenario.Kind, ln net.Listener) error {
	if !s.track(ln) {
		_ = ln.Close()
		return net.ErrClosed
	}
	if kind == scenario.HTTP || kind == scenario.Bulk {
		s.wg.Go(func() {
			if err := s.web.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.log.Error("demo web server stopped", "error", err)
			}
		})
		return nil
	}
	s.wg.Go(func() { s.accept(kind, ln) })
	return nil
}

func (s *Server) accept(kind scenario.Kind, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Error("demo server stopped accepting", "error", err)
			}
			return
		}
		if !s.track(conn) {
			_ = conn.Close()
			return
		}
		s.wg.Go(func() {
			defer s.untrack(conn)
			if err := s.answer(kind, conn); err != nil {
				s.log.Debug("demo session ended early", "kind", string(kind), "error", err)
			}
		})
	}
}

func (s *Server) answer(kind scenario.Kind, conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	switch kind {
	case scenario.SSH:
		return serveSSH(conn, s.password)
	case scenario.TLS:
		return serveTLS(conn, s.tls)
	}
	return errors.New("no server for this kind")
}

func serveTLS(conn net.Conn, conf *tls.Config) error {
	c := tls.Server(conn, conf)
	for {
		down, err := readAsk(c)
		if errors.Is(err, io.EOF) {
			return c.Close()
		}
		if err != nil {
			return err
		}
		if _, err := io.CopyN(c, filler{}, int64(down)); err != nil {
			return err
		}
	}
}

// page answers with as many bytes as the path names.
func page(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || n < 0 || n > maxBody {
		http.Error(w, "the path is the length of the page", http.StatusBadRequest)
		return
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxBody)); err != nil {
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.CopyN(w, filler{}, int64(n)) // a client that leaves is its own loss
}

// ServePacket answers DNS-like questions on conn until Close. It does not block.
func (s *Server) ServePacket(conn net.PacketConn) error {
	if !s.track(conn) {
		_ = conn.Close()
		return net.ErrClosed
	}
	s.wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if a, err := dnsAnswer(buf[:n]); err == nil {
				_, _ = conn.WriteTo(a, from) // lost answers are asked for again
			}
		}
	})
	return nil
}

func (s *Server) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) untrack(c io.Closer) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// Close ends every listener and session.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = make(map[io.Closer]struct{})
	s.mu.Unlock()
	for c := range open {
		_ = c.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.web.Shutdown(ctx) // closes idle connections; the rest follow
	err := s.web.Close()
	s.wg.Wait()
	return err
}
