package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// roomFor is how many sites the resource limits have room for at least, so that a
// roster may grow while the host runs.
const roomFor = 256

var errOverBudget = errors.New("gossip: over its organisation's budget")

// ErrStranger says that a key is not in the roster.
var ErrStranger = errors.New("gossip: not in the roster")

// peerLink is one site of the roster.
type peerLink struct {
	pid     peer.ID
	changed chan struct{} // a connection came or went, or the site's entry changed
	lost    chan struct{} // a connection went
	left    chan struct{} // closed when it is no longer in the roster
	out     *outbox       // what it is told straight

	mu    sync.Mutex
	site  member
	near  []ma.Multiaddr // found on the local network
	up    bool
	since time.Time
	why   string

	heardOn network.Stream // what it says straight
}

// member is a site of the roster, read.
type member struct {
	federation.Site
	addrs []ma.Multiaddr
}

// admitted says why the site may not connect now, or nil.
func (m *member) admitted(now time.Time) error {
	if !m.Until.IsZero() && now.After(m.Until) {
		return fmt.Errorf("site %s: %w at %s; it needs a new certificate of its organisation", m.Name, identity.ErrExpired, m.Until.Format(time.RFC3339))
	}
	return nil
}

func (l *peerLink) at() federation.Site {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.site.Site
}

// end fires when the site's certificate ends; never for one that has ended.
func (l *peerLink) end(now time.Time) (<-chan time.Time, func()) {
	until := l.at().Until
	if until.IsZero() || !now.Before(until) {
		return nil, func() {}
	}
	timer := time.NewTimer(until.Sub(now) + time.Millisecond)
	return timer.C, func() { timer.Stop() }
}

// sleep waits, at most until something comes out of sooner, and says whether the link
// is still wanted.
func (l *peerLink) sleep(ctx context.Context, d time.Duration, sooner ...<-chan struct{}) bool {
	var wake <-chan struct{}
	if len(sooner) > 0 {
		wake = sooner[0]
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-l.left:
		return false
	case <-ctx.Done():
		return false
	}
}

// links is the roster as the transport sees it.
type links struct {
	mu sync.RWMutex
	m  map[peer.ID]*peerLink
}

func (ls *links) get(p peer.ID) *peerLink {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	return ls.m[p]
}

func (ls *links) len() int {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	return len(ls.m)
}

func (ls *links) all() []*peerLink {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	out := make([]*peerLink, 0, len(ls.m))
	for _, l := range ls.m {
		out = append(out, l)
	}
	return out
}

// admit says why a peer may not connect or be heard now: ErrStranger,
// identity.ErrExpired, or nil.
func (ls *links) admit(p peer.ID, now time.Time) error {
	l := ls.get(p)
	if l == nil {
		return ErrStranger
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.site.admitted(now)
}

// set makes the roster be what is given. Links of sites that stay are kept; those
// of sites that left are told so. It changes nothing when an entry is bad.
func (ls *links) set(roster []federation.Site, self identity.ID) (fresh []*peerLink, err error) {
	next := make(map[peer.ID]member, len(roster))
	for _, s := range roster {
		if s.ID == self {
			continue
		}
		pid, err := peer.Decode(string(s.ID))
		if err != nil {
			return nil, fmt.Errorf("%w: site %s: id %q: %v", ErrAddress, s.Name, s.ID, err)
		}
		addrs, err := parseAddrs(s.Addrs)
		if err != nil {
			return nil, fmt.Errorf("%w: site %s: %v", ErrAddress, s.Name, err)
		}
		next[pid] = member{s, addrs}
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.m == nil {
		ls.m = make(map[peer.ID]*peerLink)
	}
	for pid, l := range ls.m {
		if _, stays := next[pid]; !stays {
			delete(ls.m, pid)
			close(l.left)
		}
	}
	for pid, s := range next {
		l := ls.m[pid]
		if l == nil {
			l = &peerLink{pid: pid, site: s, changed: make(chan struct{}, 1), lost: make(chan struct{}, 1), left: make(chan struct{}), out: newOutbox(), since: time.Now()}
			ls.m[pid] = l
			fresh = append(fresh, l)
			continue
		}
		l.mu.Lock()
		l.site = s
		l.mu.Unlock()
	}
	return fresh, nil
}

// SetRoster changes who may connect. Who is no longer in it is cut off before
// SetRoster returns, and what it signed is not forwarded from then on; who is new
// is dialled. Addresses and ends of certificates of those who stay are replaced.
// After an error the roster is as it was.
func (t *Transport) SetRoster(roster []federation.Site) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.links.all()
	fresh, err := t.links.set(roster, t.self)
	if err != nil {
		return err
	}
	t.ledger.bill(t.links.all())
	for _, l := range before {
		if t.links.get(l.pid) == nil {
			_ = t.host.Network().ClosePeer(l.pid)
		}
		t.note(l.pid)
	}
	for _, l := range fresh {
		t.tend(l)
	}
	return nil
}

// refusals counts what was turned away, by cause.
type refusals struct{ strangers, expired, excess atomic.Uint64 }

func (r *refusals) count(err error) (n uint64) {
	switch {
	case errors.Is(err, errOverBudget):
		return r.excess.Add(1)
	case errors.Is(err, identity.ErrExpired):
		return r.expired.Add(1)
	}
	return r.strangers.Add(1)
}

// Refusals says how often something was turned away: connections and messages of
// keys that are not in the roster ("stranger"), of sites whose certificate has
// ended ("expired"), and messages above a budget ("over-budget").
func (t *Transport) Refusals() map[string]uint64 {
	return map[string]uint64{
		"stranger": t.refused.strangers.Load(), "expired": t.refused.expired.Load(), "over-budget": t.refused.excess.Load(),
	}
}

// Strangers counts connections and messages that were refused because their key is
// not in the roster.
func (t *Transport) Strangers() uint64 { return t.refused.strangers.Load() }

// gater lets the roster through and nobody else.
type gater struct{ t *Transport }

func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.t.admit(p) == nil }

func (g *gater) InterceptAddrDial(p peer.ID, _ ma.Multiaddr) bool { return g.InterceptPeerDial(p) }

func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true } // who it is shows in the handshake

func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, at network.ConnMultiaddrs) bool {
	err := g.t.admit(p)
	if err == nil {
		return true
	}
	if n := g.t.refused.count(err); n&(n-1) == 0 { // the first, second, fourth, ...: a stranger must not fill the log
		g.t.opt.Log.Warn("a connection was refused", "why", err, "id", p.String(), "address", at.RemoteMultiaddr().String(), "times", n)
	}
	return false
}

func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
