package node

import (
	"fmt"
	"time"
)

// clockWatch notices when the wall clock is set while the site runs. Decisions
// made in this process keep their length all the same, for their times carry
// the monotonic clock, and so does the kernel's expiry; what a jump does bend is
// the order of stored records and what other sites make of expiries.
type clockWatch struct {
	start  time.Time // with its monotonic reading
	offset time.Duration
}

// jump is what passes for a jump rather than for the clock being steered.
const jump = 2 * time.Second

// look returns a sentence when the wall clock has moved against the monotonic
// one since the last look.
func (c *clockWatch) look(now time.Time) string {
	if c.start.IsZero() {
		c.start = now
		return ""
	}
	offset := now.Round(0).Sub(c.start.Round(0)) - now.Sub(c.start)
	moved := offset - c.offset
	if moved < jump && moved > -jump {
		return ""
	}
	c.offset = offset
	return fmt.Sprintf("the system clock was set by %+.0f s: standing blocks keep their length; records around now may seem out of order (chrony or systemd-timesyncd keep it steady)", moved.Seconds())
}
