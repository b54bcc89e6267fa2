// Package agent runs the demo's sessions over real connections: Do is the
// client, Server the other end. It opens nothing by itself: the caller dials
// and listens, in whichever network namespace it likes.
//
// HTTP and bulk are net/http on both ends, TLS is crypto/tls with a
// certificate made for the run, DNS-like questions have the form of DNS
// messages, and SSH-like sessions show the outward form of SSH (banner, key
// exchange, password attempts, commands) without its cryptography. Within each
// protocol the client says how long an answer it wants, so that both ends need
// no shared script.
//
// The servers trust their clients no more than any server does: every length
// that comes over the wire is bounded by maxBody.
package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// maxBody bounds every length that a peer may name.
const maxBody = 16 << 20

// Dial opens the session's connection from its From address.
type Dial func(ctx context.Context) (net.Conn, error)

// Do runs a session to its end and says how it went. trust is what the TLS
// client accepts.
func Do(ctx context.Context, s *scenario.Session, dial Dial, trust *tls.Config) scenario.Result {
	r := scenario.Result{Session: s, Start: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	r.Err = do(ctx, s, dial, trust, &r)
	r.OK = r.Err == nil
	r.Duration = time.Since(r.Start)
	return r
}

func do(ctx context.Context, s *scenario.Session, dial Dial, trust *tls.Config, r *scenario.Result) error {
	conn, err := dial(ctx)
	if err != nil {
		if s.Closed && errors.Is(err, syscall.ECONNREFUSED) {
			r.Answered = true
			return nil
		}
		return fmt.Errorf("%s to %s:%d: connect: %w", s.Kind, s.To, s.Port, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r.Answered = !s.UDP()
	switch s.Kind {
	case scenario.Probe:
		return nil
	case scenario.DNS:
		err = askDNS(ctx, conn, s, r)
	case scenario.HTTP, scenario.Bulk:
		err = browse(ctx, conn, s, r)
	case scenario.TLS:
		err = secure(ctx, conn, s, trust, r)
	case scenario.SSH:
		err = shell(ctx, conn, s, r)
	default:
		err = errors.New("unknown kind of session")
	}
	if err != nil {
		return fmt.Errorf("%s to %s:%d: %w", s.Kind, s.To, s.Port, err)
	}
	return nil
}

// halfCloser is a connection whose writing end can be closed alone.
type halfCloser interface {
	io.Reader
	CloseWrite() error
}

// farewell closes in the order in which polite programs do: our FIN, the
// peer's FIN, and only then the socket, so that no reset follows.
func farewell(conn halfCloser) error {
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(conn, maxBody)); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

func tcpFarewell(conn net.Conn) error {
	if c, ok := conn.(halfCloser); ok {
		return farewell(c)
	}
	return nil
}

// think waits as a person or program does between two exchanges.
func think(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askDNS sends questions whose first label names the length of the wanted
// answer, and asks once more after two seconds of silence, like a resolver.
func askDNS(ctx context.Context, conn net.Conn, s *scenario.Session, r *scenario.Result) error {
	buf := make([]byte, 1500)
	for i, e := range s.Script {
		if err := think(ctx, e.Think); err != nil {
			return err
		}
		q := dnsQuestion(uint16(s.ID)+uint16(i), e.Up, e.Down)
		n, err := 0, error(nil)
		for range 2 {
			if _, err = conn.Write(q); err != nil {
				return fmt.Errorf("ask: %w", err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			if n, err = conn.Read(buf); err == nil {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if n < 12 || buf[0] != q[0] || buf[1] != q[1] {
			return errors.New("answer: not to this question")
		}
		r.Answered = true
		r.Up += int64(len(q))
		r.Down += int64(n)
	}
	return nil
}

// browse runs exchanges as HTTP requests on one connection.
func browse(ctx context.Context, conn net.Conn, s *scenario.Session, r *scenario.Result) error {
	in := bufio.NewReader(conn)
	for i, e := range s.Script {
		if err := think(ctx, e.Think); err != nil {
			return err
		}
		req, err := request(ctx, s, e, i == len(s.Script)-1)
		if err != nil {
			return err
		}
		if err := req.Write(conn); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			return fmt.Errorf("response: %w", err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
		if resp.StatusCode != http.StatusOK || n != int64(e.Down) {
			return fmt.Errorf("response: status %d with %d bytes: expected 200 with %d", resp.StatusCode, n, e.Down)
		}
		r.Up += int64(e.Up)
		r.Down += n
	}
	return tcpFarewell(conn)
}

func request(ctx context.Context, s *scenario.Session, e scenario.Exchange, last bool) (*http.Request, error) {
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if e.Up > 2000 {
		method, body = http.MethodPost, io.LimitReader(filler{}, int64(e.Up))
	}
	url := fmt.Sprintf("http://%s/%d", net.JoinHostPort(s.To.String(), strconv.Itoa(int(s.Port))), e.Down)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, fmt.Errorf("request: %v", err)
	}
	req.Header.Set("User-Agent", "demo")
	if method == http.MethodPost {
		req.ContentLength = int64(e.Up)
	} else if pad := e.Up - 110; pad > 0 {
		req.Header.Set("Cookie", strings.Repeat("c", pad))
	}
	req.Close = last
	return req, nil
}

// secure runs exchanges as framed messages within TLS.
func secure(ctx context.Context, conn net.Conn, s *scenario.Session, trust *tls.Config, r *scenario.Result) error {
	c := tls.Client(conn, trust)
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	for _, e := range s.Script {
		if err := think(ctx, e.Think); err != nil {
			return err
		}
		if err := writeAsk(c, e.Up, e.Down); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(e.Down)); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		r.Up += int64(e.Up)
		r.Down += int64(e.Down)
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(c, maxBody)); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return tcpFarewell(conn)
}

// askHeader is how many bytes of a message say its length and the answer's.
const askHeader = 8

// writeAsk sends a message of up bytes that asks for down bytes.
func writeAsk(w io.Writer, up, down int) error {
	up = max(up, askHeader)
	b := make([]byte, min(up, 64<<10))
	binary.BigEndian.PutUint32(b, uint32(up))
	binary.BigEndian.PutUint32(b[4:], uint32(down))
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, err := io.CopyN(w, filler{}, int64(up-len(b)))
	return err
}

// readAsk reads such a message and returns how much it asks for; io.EOF before
// its first byte is the peer's farewell.
func readAsk(r io.Reader) (down int, err error) {
	var h [askHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, err
	}
	up, want := binary.BigEndian.Uint32(h[:]), binary.BigEndian.Uint32(h[4:])
	if up < askHeader || up > maxBody || want > maxBody {
		return 0, fmt.Errorf("message of %d bytes asking for %d: expected %d to %d", up, want, askHeader, maxBody)
	}
	if _, err := io.CopyN(io.Discard, r, int64(up)-askHeader); err != nil {
		return 0, err
	}
	return int(want), nil
}

// filler is an endless body.
type filler struct{}

func (filler) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return len(b), nil
}
