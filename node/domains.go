package node

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	domains "github.com/hedgerow-mesh/hedgerow/dataplane/names"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// looksLikeDomain tells a name from the forms of addresses, so that an error is
// about what was meant.
func looksLikeDomain(s string) bool {
	return strings.Contains(s, ".") && !strings.ContainsAny(s, ":/~ ") && strings.ContainsFunc(s, unicode.IsLetter)
}

// resolved takes what an inside host was told. The caller holds n.mu. A message
// that cannot be read leads to nothing: the host could make no more of it.
func (n *Node) resolved(now time.Time, a *dataplane.Answer) {
	if said, err := domains.Parse(a.Message); err == nil {
		n.act(n.machine.Resolved(now, a.Client, said))
	}
}

// watchNames makes the plane show DNS answers while there are domains to look
// for. The caller holds n.mu.
func (n *Node) watchNames() error {
	on := n.machine.Domains() > 0
	p, ok := n.o.Plane.(dataplane.Names)
	if !ok {
		if on {
			return fmt.Errorf("this packet path shows no DNS answers: %w", dataplane.ErrUnsupported)
		}
		return nil
	}
	err := p.WatchNames(on)
	n.watching = on && err == nil
	return err
}

func (n *Node) blockDomain(_ context.Context, name string, d time.Duration, reason string) error {
	if _, ok := n.o.Plane.(dataplane.Names); !ok {
		return forAPI(fmt.Errorf("domain %s: this packet path shows no DNS answers", name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.BlockDomain(n.now(), name, d, reason)
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	return n.watchNames()
}

func (n *Node) unblockDomain(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.UnblockDomain(n.now(), name)
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	return n.watchNames()
}

// nameOf is the one form in which a target or domain is kept.
func nameOf(id string) string {
	if t, err := enforce.ParseTarget(id); err == nil {
		return t.String()
	}
	if d, err := domains.Normalise(id); err == nil {
		return d
	}
	return ""
}

// tickNames stops watching when the last domain's time has come. The caller
// holds n.mu.
func (n *Node) tickNames() {
	if n.watching && n.machine.Domains() == 0 {
		if err := n.watchNames(); err != nil {
			n.log.Error("dns answers are still watched", telemetry.KeyErr, err)
		}
	}
}
