package softplane

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// fellows counts flows that came to their fourth packet by who began them and what
// service they asked, as the kernel does, see flow.Record.Fellows.
type fellows map[fellowKey]*fellow

type fellowKey struct {
	from   netip.Addr
	to     netip.AddrPort
	proto  uint8
	proved bool
}

// fellow counts in a window of time, and in the one before.
type fellow struct {
	window    int64
	now, last uint16
}

const (
	fellowShift = 33 // a window is 2^33 ns
	maxFellows  = 1 << 14
)

// meet counts r among those like it, and notes how many there were.
func (f fellows) meet(r *flow.Record, t int64) {
	k, window := fellowKey{r.Initiator().Addr(), r.Responder(), r.Key.Proto, r.Validated[0]}, t>>fellowShift
	c := f[k]
	if c == nil {
		if len(f) >= maxFellows {
			f.forget(window)
		}
		c = &fellow{window: window}
		f[k] = c
	}
	switch past := window - c.window; {
	case past > 1 || past < -1:
		*c = fellow{window: window}
	case past == 1:
		*c = fellow{window: window, last: c.now}
	}
	r.Fellows = uint16(min(uint32(c.now)+uint32(c.last), 1<<16-1))
	c.now = max(c.now, c.now+1) // stays where it would begin anew
}

// forget makes room: of those that are past, or of all.
func (f fellows) forget(window int64) {
	for k, c := range f {
		if window-c.window > 1 {
			delete(f, k)
		}
	}
	if len(f) >= maxFellows {
		clear(f)
	}
}
