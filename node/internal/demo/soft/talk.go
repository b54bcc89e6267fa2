package soft

import (
	"errors"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/agent"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Sizes on the wire beside the script's own bytes, as the lab's real programs
// send them.
const (
	tlsHello    = 1510 // ClientHello with a hybrid key share
	tlsAnswer   = 2010 // ServerHello to Finished, with one small certificate
	tlsFinished = 80
	tlsTicket   = 130
	tlsRecord   = 22 // header, content type and tag of each record
	tlsFull     = 16 << 10
	httpAnswer  = 130 // status line and headers
)

// talk runs the script within its protocol.
func (c *connection) talk(r *scenario.Result) error {
	switch c.s.Kind {
	case scenario.Probe:
		return nil
	case scenario.HTTP, scenario.Bulk:
		return c.exchanges(r, func(e scenario.Exchange) error {
			verb := "GET /"
			if e.Up > 2000 {
				verb = "POST /"
			}
			if err := c.send(0, []byte(verb), e.Up); err != nil {
				return err
			}
			return c.send(1, []byte("HTTP/1.1 200 OK"), httpAnswer+e.Down)
		})
	case scenario.TLS:
		if err := c.tlsHandshake(); err != nil {
			return err
		}
		return c.exchanges(r, func(e scenario.Exchange) error {
			if err := c.record(0, e.Up); err != nil {
				return err
			}
			return c.record(1, e.Down)
		})
	case scenario.SSH:
		return c.shell(r)
	}
	return fmt.Errorf("unknown kind of session %q", c.s.Kind)
}

// exchanges runs each step of the script by a protocol's way to ask and answer.
func (c *connection) exchanges(r *scenario.Result, do func(scenario.Exchange) error) error {
	for _, e := range c.s.Script {
		if err := c.pause(e.Think); err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
		r.Up += int64(e.Up)
		r.Down += int64(e.Down)
	}
	return nil
}

func (c *connection) tlsHandshake() error {
	for _, m := range []struct {
		end, size int
		head      []byte
	}{
		{0, tlsHello, []byte{0x16, 3, 1}},
		{1, tlsAnswer, []byte{0x16, 3, 3}},
		{0, tlsFinished, []byte{0x14, 3, 3}},
		{1, tlsTicket, []byte{0x17, 3, 3}},
	} {
		if err := c.send(m.end, m.head, m.size); err != nil {
			return err
		}
	}
	return nil
}

func (c *connection) record(end, size int) error {
	records := 1 + size/tlsFull
	return c.send(end, []byte{0x17, 3, 3}, size+records*tlsRecord)
}

// shell is an SSH-like session; see agent for its messages.
func (c *connection) shell(r *scenario.Result) error {
	banner := []byte(agent.SSHBanner)
	for _, m := range []struct {
		end, size int
		head      []byte
	}{
		{1, len(banner), banner}, {0, len(banner), banner},
		{0, agent.SSHKexInitUp, nil}, {1, agent.SSHKexInitDown, nil},
		{0, agent.SSHKexDHUp, nil}, {1, agent.SSHKexDHDown, nil},
	} {
		if err := c.send(m.end, m.head, m.size); err != nil {
			return err
		}
	}
	open := false
	for _, password := range c.s.Passwords {
		if err := c.send(0, nil, agent.SSHAuthUp); err != nil {
			return err
		}
		answer := agent.SSHAuthFail
		if open = password == c.password; open {
			answer = agent.SSHAuthOK
		}
		if err := c.send(1, nil, answer); err != nil {
			return err
		}
		r.Up += agent.SSHAuthUp
		r.Down += int64(answer)
		if open {
			break
		}
	}
	if !open && len(c.s.Script) > 0 {
		return errors.New("ssh: password refused")
	}
	return c.exchanges(r, func(e scenario.Exchange) error {
		if err := c.send(0, nil, e.Up); err != nil {
			return err
		}
		return c.send(1, nil, e.Down)
	})
}
