package agent

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a server of every kind on loopback.
type house struct {
	srv *Server
	at  map[scenario.Kind]string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	srv, err := NewServer("sesame", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	h := &house{srv: srv, at: map[scenario.Kind]string{}}
	for _, k := range []scenario.Kind{scenario.HTTP, scenario.Bulk, scenario.TLS, scenario.SSH} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h.at[k] = ln.Addr().String()
		if err := srv.Serve(k, ln); err != nil {
			t.Fatal(err)
		}
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.at[scenario.DNS] = pc.LocalAddr().String()
	if err := srv.ServePacket(pc); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) do(t *testing.T, s scenario.Session) scenario.Result {
	t.Helper()
	at := h.at[s.Kind]
	network := "tcp"
	if s.UDP() {
		network = "udp"
	}
	ap := netip.MustParseAddrPort(at)
	s.To, s.Port = ap.Addr(), ap.Port()
	if s.Timeout == 0 {
		s.Timeout = 5 * time.Second
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, at)
	}
	return Do(t.Context(), &s, dial, h.srv.Trust())
}

func TestEveryKindRunsItsScript(t *testing.T) {
	h := newHouse(t)
	script := []scenario.Exchange{{Up: 200, Down: 5000}, {Think: time.Millisecond, Up: 30_000, Down: 60}, {Up: 400, Down: 120_000}}
	for _, k := range []scenario.Kind{scenario.HTTP, scenario.Bulk, scenario.TLS} {
		r := h.do(t, scenario.Session{Kind: k, Script: script})
		if r.Err != nil || !r.OK || !r.Answered {
			t.Errorf("%s: %+v", k, r)
		}
		if r.Up != 30_600 || r.Down != 125_060 {
			t.Errorf("%s: %d up, %d down", k, r.Up, r.Down)
		}
	}
	r := h.do(t, scenario.Session{Kind: scenario.DNS, Script: []scenario.Exchange{{Up: 50, Down: 200}}})
	if r.Err != nil || r.Up < 40 || r.Up > 60 || r.Down < 190 || r.Down > 210 {
		t.Errorf("dns: %+v", r)
	}
}

func TestPasswordsDecide(t *testing.T) {
	h := newHouse(t)
	work := []scenario.Exchange{{Up: 60, Down: 900}, {Up: 40, Down: 100}}
	if r := h.do(t, scenario.Session{Kind: scenario.SSH, Passwords: []string{"slip", "sesame"}, Script: work}); r.Err != nil {
		t.Errorf("right password on the second try: %v", r.Err)
	}
	r := h.do(t, scenario.Session{Kind: scenario.SSH, Passwords: []string{"a", "b", "c"}})
	if r.Err != nil || r.Down != 3*SSHAuthFail {
		t.Errorf("guesser: %+v", r)
	}
	if r := h.do(t, scenario.Session{Kind: scenario.SSH, Passwords: []string{"a"}, Script: work}); r.OK {
		t.Error("a wrong password opened the session")
	}
}

func TestClosedPortAnswersAProbe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	_ = ln.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at)
	}
	s := scenario.Session{Kind: scenario.Probe, Closed: true, Timeout: time.Second}
	if r := Do(t.Context(), &s, dial, nil); !r.OK || !r.Answered {
		t.Errorf("refusal: %+v", r)
	}
	s.Closed = false
	if r := Do(t.Context(), &s, dial, nil); r.OK || r.Answered {
		t.Errorf("refusal of a port that should be open: %+v", r)
	}
}

func TestSilenceEndsInTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln.Addr().String()) // the backlog answers, nobody accepts
	}
	for _, k := range []scenario.Kind{scenario.HTTP, scenario.TLS, scenario.SSH} {
		s := scenario.Session{
			Kind: k, Timeout: 100 * time.Millisecond, Passwords: []string{"x"},
			Script: []scenario.Exchange{{Up: 100, Down: 100}},
		}
		r := Do(t.Context(), &s, dial, &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS13})
		if r.OK || r.Err == nil || r.Duration > 3*time.Second {
			t.Errorf("%s: %+v", k, r)
		}
	}
}

func TestServerRefusesHostileLengths(t *testing.T) {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], 1<<31)
	if _, err := readAsk(strings.NewReader(string(b[:]))); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("readAsk: %v", err)
	}
	if _, err := readSSH(strings.NewReader(string(b[:]))); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("readSSH: %v", err)
	}
}

func FuzzDecoders(f *testing.F) {
	f.Add(dnsQuestion(7, 50, 200))
	f.Add([]byte{0, 0, 0, 12, sshAuth, 0, 0, 0, 0, 0, 1, 'x'})
	f.Add([]byte{0, 0, 0, 9, 0, 0, 1, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := dnsAnswer(b); err == nil && len(a) > 1500+len(b) {
			t.Errorf("answer of %d bytes", len(a))
		}
		if m, err := readSSH(strings.NewReader(string(b))); err == nil && (m.size > maxSSH || m.want > maxSSH) {
			t.Errorf("accepted %+v", m)
		}
		if n, err := readAsk(strings.NewReader(string(b))); err == nil && n > maxBody {
			t.Errorf("accepted %d", n)
		}
	})
}
