package xdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
)

var _ dataplane.Hellos = (*Plane)(nil)

// hellos is what TLS clients said. The tracker is of the goroutine that delivers
// events.
type hellos struct {
	on      atomic.Bool
	tracker *hello.Tracker
}

// WatchHellos implements [dataplane.Hellos].
func (p *Plane) WatchHellos(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	p.cfg.Hellos = 0
	if on {
		p.cfg.Hellos = 1
	}
	p.hellos.on.Store(on)
	return p.writeConfig()
}

// isHello tells samples of the ring apart, as isAnswer does.
func isHello(raw []byte) bool { return len(raw) == int(unsafe.Sizeof(kernelHelloPart{})) }

// hear takes a sample of what may be a hello.
func (p *Plane) hear(raw []byte) error {
	if !p.hellos.on.Load() {
		p.hellos.tracker = nil
		return nil
	}
	s, err := decodeHello(raw, &p.clock)
	if err != nil {
		return err
	}
	if p.hellos.tracker == nil {
		p.hellos.tracker = hello.NewTracker()
	}
	p.hellos.tracker.See(&s)
	return nil
}

// greet gives an event's record the hello of its flow.
func (p *Plane) greet(ev *dataplane.Event) {
	if p.hellos.tracker != nil && ev.Answer == nil {
		p.hellos.tracker.Fill(&ev.Record, ev.Kind == dataplane.EventEnd)
	}
}

// decodeHello makes a sample of what lies in raw; the payload stays there.
func decodeHello(raw []byte, clock *bootClock) (s hello.Sample, err error) {
	var h kernelHelloPart
	at := int(unsafe.Offsetof(h.Bytes))
	if len(raw) < int(unsafe.Sizeof(h)) {
		return s, fmt.Errorf("hello: %d bytes: expected %d", len(raw), unsafe.Sizeof(h))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), at), raw)
	if int(h.Size) > len(h.Bytes) {
		return s, fmt.Errorf("hello: size: %d: expected at most %d", h.Size, len(h.Bytes))
	}
	return hello.Sample{
		Key: fromFlowKey(&h.Key), At: clock.unix(h.At), First: h.First != 0, Seq: h.Seq,
		Payload: raw[at : at+int(h.Size)],
	}, nil
}
