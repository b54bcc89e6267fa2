// Package soft runs the demo's sessions without root: it renders each as the
// frames that its gateway would see at its inside interface (handshake, data
// segments with their acknowledgements, retransmissions, FIN) and hands them
// to the site's packet path at the time at which they happen. A frame that the
// path drops is lost: the session sends it again as TCP would, and fails when
// its patience ends.
//
// What is left out, and does not matter to what is learned or decided: TCP
// options, reordering, and the cryptography inside TLS and SSH, of which only
// record and message sizes remain.
package soft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// FrameSink is a site's packet path. Frame says whether the frame passed. It
// must be safe for concurrent use and must not keep the frame.
type FrameSink interface {
	Frame(hook dataplane.Hook, frame []byte, at time.Time) bool
}

// World renders sessions into the sites' packet paths.
type World struct {
	sc    *scenario.Scenario
	sinks map[string]FrameSink
	port  atomic.Uint32
}

// New returns a world over one sink per site name.
func New(sc *scenario.Scenario, sinks map[string]FrameSink) (*World, error) {
	for _, s := range sc.Sites {
		if sinks[s.Name] == nil {
			return nil, fmt.Errorf("soft world: site %s has no packet path", s.Name)
		}
	}
	return &World{sc: sc, sinks: sinks}, nil
}

// Run renders one session to its end. Its times are real times.
func (w *World) Run(ctx context.Context, s *scenario.Session) scenario.Result {
	r := scenario.Result{Session: s, Start: time.Now()}
	sink := w.sinks[s.Site]
	if sink == nil {
		r.Err = fmt.Errorf("session names no site: %q", s.Site)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	c := w.connection(realTime{ctx}, sink, s)
	r.Err = c.run(&r)
	r.OK = r.Err == nil
	r.Duration = time.Since(r.Start)
	return r
}

// connection is one session being rendered. End 0 is the client.
type connection struct {
	clock    clock
	sink     FrameSink
	s        *scenario.Session
	rng      *rand.Rand
	ends     [2]netip.AddrPort
	seq      [2]uint32 // next to send
	sent     [2]bool   // the end has sent its SYN
	id       [2]uint16
	rtt      time.Duration
	buf      []byte
	password string // opens the server
}

const (
	mss         = 1448
	firstWindow = 10 // segments in flight at first (RFC 6928)
	lastWindow  = 64
)

func (w *World) connection(t clock, sink FrameSink, s *scenario.Session) *connection {
	rng := rand.New(rand.NewPCG(w.sc.Seed, s.ID))
	port := uint16(32768 + w.port.Add(1)%28000)
	return &connection{
		clock: t, sink: sink, s: s, rng: rng, password: w.sc.Password,
		ends: [2]netip.AddrPort{netip.AddrPortFrom(s.From, port), netip.AddrPortFrom(s.To, s.Port)},
		seq:  [2]uint32{rng.Uint32(), rng.Uint32()},
		id:   [2]uint16{uint16(rng.Uint32()), uint16(rng.Uint32())},
		rtt:  time.Duration(1500+rng.IntN(4000)) * time.Microsecond,
	}
}

func (c *connection) run(r *scenario.Result) error {
	err := c.script(r)
	if err == nil || c.s.UDP() || !c.sent[0] {
		return err
	}
	c.emit(0, flow.RST|flow.ACK, nil, 0) // a client that gives up; whether it passes changes nothing
	return err
}

func (c *connection) script(r *scenario.Result) error {
	if c.s.UDP() {
		return c.datagrams(r)
	}
	if c.s.Forged {
		return c.forged(r)
	}
	if err := c.open(r); err != nil {
		return err
	}
	if r.Answered && c.s.Closed {
		return nil
	}
	if err := c.talk(r); err != nil {
		return err
	}
	return c.close()
}

// pause lets time pass, so that frames have the times at which they would be seen.
func (c *connection) pause(d time.Duration) error {
	if err := c.clock.pause(d); err != nil {
		return fmt.Errorf("%s to %s: %w", c.s.Kind, c.ends[1], err)
	}
	return nil
}

// emit shows one packet of an end to the packet path.
func (c *connection) emit(end int, flags uint8, head []byte, size int) bool {
	c.id[end]++
	p := packet{
		src: c.ends[end], dst: c.ends[1-end], proto: flow.TCP, ttl: c.ttl(end), id: c.id[end], flags: flags,
		seq: c.seq[end], window: 64240, head: head, size: size,
	}
	if flags&flow.ACK != 0 {
		p.ack = c.seq[1-end]
	}
	if c.s.UDP() {
		p.proto = flow.UDP
	}
	c.buf = p.frame(c.buf[:0])
	return c.sink.Frame(c.hook(end), c.buf, c.clock.now())
}

// hook is where the gateway sees an end's packets.
func (c *connection) hook(end int) dataplane.Hook {
	if (end == 0) != c.s.Inbound {
		return dataplane.FromInside
	}
	return dataplane.ToInside
}

// ttl is 64 at the inside interface for inside hosts, and some hops less for
// those outside.
func (c *connection) ttl(end int) uint8 {
	if c.hook(end) == dataplane.FromInside {
		return 64
	}
	return 63 - c.ends[end].Addr().As4()[3]%12
}

// open is the handshake. A lost packet of it is sent again after a second,
// then after two more, as Linux does.
func (c *connection) open(r *scenario.Result) error {
	for wait := time.Second; ; wait *= 2 {
		c.sent[0] = true
		if answered, err := c.shake(); err != nil {
			return err
		} else if answered {
			r.Answered = true
			return nil
		}
		if err := c.pause(wait); err != nil {
			return err
		}
	}
}

// forged is a first packet in another's name, and its answer.
func (c *connection) forged(r *scenario.Result) error {
	passed := c.emit(0, flow.SYN, nil, 0)
	c.seq[0]++
	if err := c.pause(c.rtt / 2); err != nil || !passed {
		return err
	}
	answer := uint8(flow.SYN | flow.ACK)
	if c.s.Closed {
		answer = flow.RST | flow.ACK
	}
	r.Answered = c.emit(1, answer, nil, 0)
	return nil
}

func (c *connection) shake() (answered bool, err error) {
	if !c.emit(0, flow.SYN, nil, 0) {
		return false, nil
	}
	c.seq[0]++
	defer func() {
		if !answered {
			c.seq[0]--
		}
	}()
	if err := c.pause(c.rtt / 2); err != nil {
		return false, err
	}
	if c.s.Closed {
		return c.emit(1, flow.RST|flow.ACK, nil, 0), nil
	}
	if !c.emit(1, flow.SYN|flow.ACK, nil, 0) {
		return false, nil
	}
	c.seq[1]++
	if err := c.pause(c.rtt / 2); err != nil {
		return false, err
	}
	if !c.emit(0, flow.ACK, nil, 0) {
		c.seq[1]--
		return false, nil
	}
	return true, nil
}

// send carries a message of size bytes from one end to the other, a window of
// segments at a time, every second segment acknowledged.
func (c *connection) send(end int, head []byte, size int) error {
	window := firstWindow
	for size > 0 {
		n := min(size, window*mss)
		if err := c.flight(end, head, n); err != nil {
			return err
		}
		head, size = nil, size-n
		window = min(window*2, lastWindow)
		if err := c.pause(c.rtt / 2); err != nil {
			return err
		}
	}
	return nil
}

// flight sends up to a window; what was lost goes out again after the
// retransmission timeout, which doubles.
func (c *connection) flight(end int, head []byte, n int) error {
	rto := 200 * time.Millisecond
	for n > 0 {
		done := c.segments(end, head, n)
		if done > 0 {
			head = nil
			rto = 200 * time.Millisecond
		}
		if n -= done; n == 0 {
			return nil
		}
		if err := c.pause(rto); err != nil {
			return err
		}
		rto *= 2
	}
	return nil
}

// segments sends until something is lost, and returns how many bytes arrived
// and were acknowledged.
func (c *connection) segments(end int, head []byte, n int) (done int) {
	for i := 0; n > done; i++ {
		size := min(mss, n-done)
		flags := uint8(flow.ACK)
		if done+size == n {
			flags |= flow.PSH
		}
		if !c.emit(end, flags, head, size) {
			return done
		}
		c.seq[end] += uint32(size)
		if (i%2 == 1 || done+size == n) && !c.emit(1-end, flow.ACK, nil, 0) {
			c.seq[end] -= uint32(size)
			return done
		}
		head = nil
		done += size
	}
	return done
}

// close is FIN from the client, FIN from the server, and the last ACK.
func (c *connection) close() error {
	for _, end := range []int{0, 1} {
		for wait := 200 * time.Millisecond; !c.emit(end, flow.FIN|flow.ACK, nil, 0); wait *= 2 {
			if err := c.pause(wait); err != nil {
				return err
			}
		}
		c.seq[end]++
		if err := c.pause(c.rtt / 2); err != nil {
			return err
		}
	}
	c.emit(0, flow.ACK, nil, 0) // if it is lost, only the server waits for it
	return nil
}

// datagrams asks each question once, and once more after two seconds.
func (c *connection) datagrams(r *scenario.Result) error {
	for _, e := range c.s.Script {
		if err := c.pause(e.Think); err != nil {
			return err
		}
		answered := false
		for try := 0; try < 2 && !answered; try++ {
			if c.emit(0, 0, nil, e.Up) {
				if err := c.pause(c.rtt / 2); err != nil {
					return err
				}
				answered = c.emit(1, 0, nil, e.Down)
			}
			if !answered {
				if err := c.pause(2 * time.Second); err != nil {
					return err
				}
			}
		}
		if !answered {
			return errors.New("dns: no answer")
		}
		r.Answered = true
		r.Up += int64(e.Up)
		r.Down += int64(e.Down)
	}
	return nil
}
