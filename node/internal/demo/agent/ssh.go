package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Message types of the SSH-like protocol, after the numbers of RFC 4253 and
// RFC 4252. A message is its length (4 bytes), its type, the length of the
// wanted answer (4 bytes) and a body.
const (
	sshKexInit  = 20
	sshKexDH    = 30
	sshAuth     = 50
	sshAuthFail = 51
	sshAuthOK   = 52
	sshData     = 94
)

// Sizes of the messages, as OpenSSH 9 sends them with its defaults.
const (
	sshHeader      = 9
	SSHKexInitUp   = 1536
	SSHKexInitDown = 1080
	SSHKexDHUp     = 1228
	SSHKexDHDown   = 1564
	SSHAuthUp      = 148
	SSHAuthFail    = 84
	SSHAuthOK      = 52
	maxSSH         = 256 << 10
)

// SSHBanner is what both ends say first.
const SSHBanner = "SSH-2.0-OpenSSH_9.6 demo\r\n"

func writeSSH(w io.Writer, typ byte, size, want int, body string) error {
	b := make([]byte, max(size, sshHeader+2+len(body)))
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	b[4] = typ
	binary.BigEndian.PutUint32(b[5:], uint32(want))
	binary.BigEndian.PutUint16(b[sshHeader:], uint16(len(body)))
	copy(b[sshHeader+2:], body)
	_, err := w.Write(b)
	return err
}

type sshMessage struct {
	typ  byte
	want int
	body string
	size int
}

func readSSH(r io.Reader) (sshMessage, error) {
	var h [4]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return sshMessage{}, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n < sshHeader+2 || n > maxSSH {
		return sshMessage{}, fmt.Errorf("message of %d bytes: expected %d to %d", n, sshHeader+2, maxSSH)
	}
	b := make([]byte, n-4)
	if _, err := io.ReadFull(r, b); err != nil {
		return sshMessage{}, err
	}
	m := sshMessage{typ: b[0], want: int(binary.BigEndian.Uint32(b[1:])), size: int(n)}
	if l := int(binary.BigEndian.Uint16(b[5:])); l <= len(b)-7 {
		m.body = string(b[7 : 7+l])
	} else {
		return sshMessage{}, errors.New("message body longer than the message")
	}
	if m.want > maxSSH {
		return sshMessage{}, fmt.Errorf("asks for %d bytes: expected at most %d", m.want, maxSSH)
	}
	return m, nil
}

// shell is the client of an SSH-like session. A session whose passwords are
// all refused has run as far as it could, which is what a guesser wants to
// know: it is no failure.
func shell(ctx context.Context, conn net.Conn, s *scenario.Session, r *scenario.Result) error {
	in := bufio.NewReader(conn)
	if err := sshHello(in, conn); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	open := false
	for _, password := range s.Passwords {
		if err := writeSSH(conn, sshAuth, SSHAuthUp, 0, password); err != nil {
			return fmt.Errorf("password: %w", err)
		}
		m, err := readSSH(in)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		r.Up += SSHAuthUp
		r.Down += int64(m.size)
		if open = m.typ == sshAuthOK; open {
			break
		}
	}
	if !open {
		if len(s.Script) > 0 {
			return errors.New("password: refused")
		}
		return tcpFarewell(conn)
	}
	for _, e := range s.Script {
		if err := think(ctx, e.Think); err != nil {
			return err
		}
		if err := writeSSH(conn, sshData, e.Up, e.Down, ""); err != nil {
			return fmt.Errorf("command: %w", err)
		}
		m, err := readSSH(in)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		r.Up += int64(e.Up)
		r.Down += int64(m.size)
	}
	return tcpFarewell(conn)
}

// sshHello exchanges banners and the key exchange's messages.
func sshHello(in *bufio.Reader, out io.Writer) error {
	if _, err := io.WriteString(out, SSHBanner); err != nil {
		return err
	}
	if line, err := in.ReadString('\n'); err != nil {
		return err
	} else if !strings.HasPrefix(line, "SSH-2.0-") {
		return fmt.Errorf("banner %.20q: expected SSH-2.0", line)
	}
	for _, step := range [][3]int{{sshKexInit, SSHKexInitUp, SSHKexInitDown}, {sshKexDH, SSHKexDHUp, SSHKexDHDown}} {
		if err := writeSSH(out, byte(step[0]), step[1], step[2], ""); err != nil {
			return err
		}
		if _, err := readSSH(in); err != nil {
			return err
		}
	}
	return nil
}

// serveSSH is the server: after three refused passwords it hangs up.
func serveSSH(conn net.Conn, password string) error {
	in := bufio.NewReader(io.LimitReader(conn, maxBody))
	if _, err := io.WriteString(conn, SSHBanner); err != nil {
		return err
	}
	if line, err := in.ReadSlice('\n'); err != nil {
		return err
	} else if !strings.HasPrefix(string(line), "SSH-2.0-") {
		return errors.New("no banner")
	}
	refused, open := 0, false
	for {
		m, err := readSSH(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		typ, size := m.typ, m.want
		switch {
		case m.typ == sshAuth && m.body == password:
			typ, size, open = sshAuthOK, SSHAuthOK, true
		case m.typ == sshAuth:
			refused++
			typ, size = sshAuthFail, SSHAuthFail
		case m.typ == sshData && !open:
			return errors.New("command before a password")
		}
		if err := writeSSH(conn, typ, size, 0, ""); err != nil {
			return err
		}
		if refused == 3 {
			return nil
		}
	}
}
