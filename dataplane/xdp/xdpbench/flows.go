package xdpbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

// Flows is the shipped program, for measuring what it costs to keep flows.
type Flows struct {
	*Program
	plane *xdp.Measured
	ends  Ends
}

// LoadFlows loads the program with a table for so many flows: the plane's own,
// or the kernel's LRU_HASH, which is the same program otherwise. Its clients
// send TCP to the ends' destination, which is inside.
func LoadFlows(name string, flows uint32, lru bool, e Ends) (*Flows, error) {
	load := xdp.LoadMeasured
	if lru {
		load = xdp.LoadMeasuredLRU
	}
	return loadFlows(name, e, load, xdp.Options{MaxFlows: flows})
}

// LoadScored is LoadFlows for flows that are to be scored: each milestone is told
// to userspace, as it is where not too many come at once. Let nothing fill the ring
// of events meanwhile, see Read.
func LoadScored(name string, flows uint32, e Ends) (*Flows, error) {
	return loadFlows(name, e, xdp.LoadMeasured, xdp.Options{MaxFlows: flows, EventRate: 1 << 30})
}

func loadFlows(name string, e Ends, load func(xdp.Options, uint32) (*xdp.Measured, error), o xdp.Options) (*Flows, error) {
	o.Role, o.Mode, o.DeadAfter = xdp.Host, dataplane.Enforce, time.Hour
	m, err := load(o, 0)
	if err != nil {
		return nil, err
	}
	p, err := Hedgerow(name, m)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &Flows{Program: p, plane: m, ends: e}, nil
}

// Scorer is the plane's part that scores flows.
func (f *Flows) Scorer() dataplane.Scorer { return f.plane }

// Heed says whether flows are scored by what was set last.
func (f *Flows) Heed(on bool) error { return f.plane.Heed(on) }

// Read takes the events out of the ring, and says how many there were.
func (f *Flows) Read() (n int, err error) {
	err = f.plane.Poll(func(*dataplane.Event) { n++ })
	return n, err
}

// Forget empties the table. The same clients then find the same places in it.
func (f *Flows) Forget() error {
	if err := f.plane.Flush(func(*dataplane.Event) {}); err != nil {
		return fmt.Errorf("%s: empty the table: %w", f.Name, err)
	}
	return nil
}

// Close lets go of the program and its tables.
func (f *Flows) Close() error { return errors.Join(f.Program.Close(), f.plane.Close()) }

// Numbers of the segments before those of a stream.
const (
	clientISN = streamSeq - 1
	serverISN = streamAck - 1
)

// Establish plays the handshake of each client. What a stream sends for it then
// follows in sequence.
func (f *Flows) Establish(clients []Source) error {
	e := f.ends
	e.TCP, e.Empty = true, true
	syn, answer, ack := makeFrame(e), makeFrame(e), makeFrame(e)
	segment(syn, flow.SYN, clientISN, 0)
	segment(answer, flow.SYN|flow.ACK, serverISN, clientISN+1)
	segment(ack, flow.ACK, clientISN+1, serverISN+1)
	for _, c := range clients {
		at := netip.AddrPortFrom(c.Addr, c.Port)
		for _, s := range []struct {
			hook     dataplane.Hook
			frame    []byte
			src, dst netip.AddrPort
		}{
			{dataplane.ToInside, syn, at, e.Dst}, {dataplane.FromInside, answer, e.Dst, at}, {dataplane.ToInside, ack, at, e.Dst},
		} {
			address(s.frame, s.src, s.dst)
			if passed, err := f.plane.Inject(s.hook, s.frame); err != nil || !passed {
				return fmt.Errorf("handshake of %s: passed %v: %w", at, passed, err)
			}
		}
	}
	return nil
}

// segment makes a frame a TCP segment of these flags and numbers.
func segment(frame []byte, flags uint8, seq, ack uint32) {
	l4 := frame[14+20:]
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], ack)
	l4[13] = flags
}

// address writes both ends, and the checksum of the IPv4 header.
func address(frame []byte, src, dst netip.AddrPort) {
	for i, end := range []netip.AddrPort{src, dst} {
		a := end.Addr().As4()
		copy(frame[offSource+4*i:], a[:])
		binary.BigEndian.PutUint16(frame[offPort+2*i:], end.Port())
	}
	binary.BigEndian.PutUint16(frame[offCheck:], checksum(frame))
}

// Frame is an empty packet between the ends, to be sent by somebody else.
func Frame(e Ends) []byte { return makeFrame(e) }

// Readdress writes both ends of such a packet.
func Readdress(frame []byte, src, dst netip.AddrPort) { address(frame, src, dst) }

// Known are the ids of the flows that clients have. A flow that was pushed out
// and came again has another.
func (f *Flows) Known(clients []Source) (map[Source]uint64, error) {
	all, err := f.plane.FlowIDs()
	if err != nil {
		return nil, fmt.Errorf("%s: read flows: %w", f.Name, err)
	}
	ids := make(map[Source]uint64, len(clients))
	for _, c := range clients {
		k, _ := flow.NewKey(netip.AddrPortFrom(c.Addr, c.Port), f.ends.Dst, flow.TCP)
		if id, ok := all[k]; ok {
			ids[c] = id
		}
	}
	return ids, nil
}

// Kept is how many of these flows are the same as they were.
func (f *Flows) Kept(were map[Source]uint64) (int, error) {
	clients := make([]Source, 0, len(were))
	for c := range were {
		clients = append(clients, c)
	}
	are, err := f.Known(clients)
	kept := 0
	for c, id := range were {
		if are[c] == id {
			kept++
		}
	}
	return kept, err
}
