package xdp

import (
	"fmt"
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

var _ dataplane.Names = (*Plane)(nil)

// WatchNames implements [dataplane.Names].
func (p *Plane) WatchNames(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	p.cfg.Names = 0
	if on {
		p.cfg.Names = 1
	}
	return p.writeConfig()
}

// isAnswer tells the two kinds of samples in the ring apart. The kernel reserves
// each in full.
func isAnswer(raw []byte) bool { return len(raw) == int(unsafe.Sizeof(kernelDnsAnswer{})) }

// decodeAnswer makes ev of a DNS answer. The message lies in raw.
func decodeAnswer(raw []byte, clock *bootClock, ev *dataplane.Event) error {
	var a kernelDnsAnswer
	if len(raw) < int(unsafe.Sizeof(a)) {
		return fmt.Errorf("answer: %d bytes: expected %d", len(raw), unsafe.Sizeof(a))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a)), raw)
	if int(a.Size) > len(a.Message) {
		return fmt.Errorf("answer: size: %d: expected at most %d", a.Size, len(a.Message))
	}
	at := int(unsafe.Offsetof(a.Message))
	*ev = dataplane.Event{Kind: dataplane.EventAnswer, At: clock.unix(a.At), Answer: &dataplane.Answer{
		Client: fromKernel(a.Client), Resolver: fromKernel(a.Resolver), Message: raw[at : at+int(a.Size)],
	}}
	return nil
}
