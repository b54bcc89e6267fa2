package mesh

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// load is what went over all sites' wires, by the kind of a message: what was said,
// and what reached a member. A request counts with its answer.
type load struct {
	mu    sync.Mutex
	kinds map[string]use
}

// use is what one kind comes to.
type use struct{ said, heard, bytes int }

func (l *load) add(kind string, u use) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = make(map[string]use)
	}
	was := l.kinds[kind]
	l.kinds[kind] = use{was.said + u.said, was.heard + u.heard, was.bytes + u.bytes}
}

// cost is what was spent up to a moment.
type cost struct {
	kinds map[string]use
	cpu   time.Duration // of this process
}

func (l *load) now() cost {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cost{maps.Clone(l.kinds), processor()}
}

// processor is the processor time that this process has had.
func processor() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// between is what was spent from one moment to another, by kind: that of which most
// was heard first.
func (c cost) between(then cost, rounds, sites int) string {
	names := slices.SortedFunc(maps.Keys(then.kinds), func(a, b string) int {
		return cmp.Or(cmp.Compare(then.kinds[b].heard, then.kinds[a].heard), strings.Compare(a, b))
	})
	var out []string
	for _, n := range names {
		was, is := c.kinds[n], then.kinds[n]
		if is == was {
			continue
		}
		all := float64(rounds * sites)
		out = append(out, fmt.Sprintf("%s %.1f said, %.1f heard, %.1f kB", n, float64(is.said-was.said)/all, float64(is.heard-was.heard)/all, float64(is.bytes-was.bytes)/all/1e3))
	}
	return strings.Join(out, "; ")
}

// counted counts what a member says and hears.
type counted struct {
	federation.Transport
	load *load
}

func (c counted) Broadcast(ctx context.Context, topic federation.Topic, b []byte) error {
	c.load.add(kindOf(b), use{said: 1, bytes: len(b)})
	return c.Transport.Broadcast(ctx, topic, b)
}

func (c counted) Request(ctx context.Context, to identity.ID, b []byte) ([]byte, error) {
	out, err := c.Transport.Request(ctx, to, b)
	heard := 1
	if err != nil {
		heard = 0
	}
	c.load.add("request", use{said: 1, heard: heard, bytes: len(b) + len(out)})
	return out, err
}

func (c counted) Run(ctx context.Context, h federation.Handler) error {
	return c.Transport.Run(ctx, counting{h, c.load})
}

// counting is a member as its transport sees it.
type counting struct {
	federation.Handler
	load *load
}

func (c counting) Receive(ctx context.Context, topic federation.Topic, from identity.ID, b []byte) federation.Verdict {
	c.load.add(kindOf(b), use{heard: 1})
	return c.Handler.Receive(ctx, topic, from, b)
}

func kindOf(b []byte) string {
	k, err := wire.KindOf(b)
	if err != nil {
		return "malformed"
	}
	return string(k)
}
