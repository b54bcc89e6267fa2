package sim

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/round"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// watch is the account of one site.
type watch struct {
	ids      []identity.ID
	hostile  map[netip.Addr]*attacker // shared, and not written any more
	ordinary int
	lost     int
	forged   int
	alerts   int
	models   int // that came to judge here
	adopted  int // of them, of rounds
	rounds   int // that made a model, whether it came to judge or not
	blocks   []blocked
	known    map[string]bool
}

// madeModel are what a node tells when a round has made a model: of its organisation,
// and between organisations.
var madeModel = []string{"round-" + round.Aggregated, "round-" + council.Final}

// blocked is the first block of a target at a site.
type blocked struct {
	at       time.Time
	target   string
	attacker *attacker // nil: the block is false
	from     string    // the site whose word it was; "" is this one
	action   string
}

// ended takes what became of a session.
func (x *watch) ended(_ *whole, p *playing) {
	r := &p.p.Result
	v := p.visit
	if p.forged {
		x.forged++
		return
	}
	if v == nil {
		x.ordinary++
		if !r.OK {
			x.lost++
		}
		return
	}
	v.tried++
	if p.opens {
		v.met, v.prevented = true, !r.Answered
	}
	if r.Answered {
		v.answered++
	}
}

// told takes what a node tells.
func (w *whole) told(e *event.Event) {
	x := &w.seen
	switch e.Kind {
	case event.KindAlert:
		x.alerts++
	case event.KindModel:
		if e.Model.State == "active" {
			x.models++
			if e.Model.Origin == "round" {
				x.adopted++
			}
		}
		if slices.Contains(madeModel, e.Model.State) {
			x.rounds++
		}
	case event.KindBlock:
		b := e.Block
		if b.State != "active" || x.known[b.Action+" "+b.Target] {
			return
		}
		x.known[b.Action+" "+b.Target] = true
		from := ""
		if name, ok := strings.CutPrefix(b.Source, "mesh:"); ok {
			from = name
		}
		x.blocks = append(x.blocks, blocked{e.Time, b.Target, x.guilty(b.Target), from, b.Action})
	}
}

// guilty is the attacker that a target names; nil if it names somebody else.
func (x *watch) guilty(target string) *attacker {
	t, err := enforce.ParseTarget(target)
	if err != nil {
		return nil
	}
	if t.IsFlow() {
		return nil
	}
	return x.hostile[t.Prefix.Addr()]
}
