package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"math"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A Budget is what one organisation may broadcast, all its sites together; a site
// that is trusted directly has one of its own. It is far above what an honest one
// says, and protects the others' processors: what an author may claim is bounded
// again, and tighter, by those who read it. Zero fields take the defaults.
type Budget struct {
	Messages float64 // per second (100)
	Burst    float64 // and at once (1000)
	Site     float64 // at once by one of its sites, on a wire of its own (400, or Burst if that is less)
	Bytes    float64 // per second (512 KiB); at once, forty times that
}

// WithDefaults is the budget with its zero fields filled in.
func (b Budget) WithDefaults() Budget {
	b.Messages = cmp.Or(b.Messages, 100)
	b.Burst = cmp.Or(b.Burst, 1000)
	b.Site = cmp.Or(b.Site, min(400, b.Burst))
	b.Bytes = cmp.Or(b.Bytes, 512<<10)
	return b
}

// Excess is forgotten by half in this time. A site with as many messages above its
// budget as tooMuch is cut off until half of them are forgotten: to receive a flood
// and throw it away is most of what a flood costs.
const (
	forgive = 10 * time.Minute
	tooMuch = 250
)

// ledger keeps the accounts. Its accounts follow the roster, so that strangers
// cannot fill it.
type ledger struct {
	budget Budget
	now    func() time.Time

	mu       sync.Mutex
	accounts map[string]*account
	of       map[peer.ID]*account // the organisation's: every message once
	wire     map[peer.ID]*account // what the site itself put on our wire of its own messages
	excess   map[peer.ID]*excess
	faults   map[peer.ID]*excess // invalid words said straight
}

type account struct {
	messages, bytes float64 // spent
	at              time.Time
}

type excess struct {
	n   float64
	at  time.Time
	cut bool
}

func newLedger(b Budget, now func() time.Time) *ledger {
	return &ledger{
		budget: b.WithDefaults(), now: now,
		accounts: make(map[string]*account), of: make(map[peer.ID]*account), wire: make(map[peer.ID]*account), excess: make(map[peer.ID]*excess), faults: make(map[peer.ID]*excess),
	}
}

// bill says whose account each site is on. Accounts of who stays go on.
func (l *ledger) bill(ls []*peerLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	accounts, of, wire := make(map[string]*account), make(map[peer.ID]*account, len(ls)), make(map[peer.ID]*account, len(ls))
	for _, link := range ls {
		name := link.at().Organisation
		if name == "" {
			name = "/" + string(link.pid) // no organisation's name begins so
		}
		if accounts[name] == nil {
			accounts[name] = cmp.Or(l.accounts[name], new(account))
		}
		of[link.pid], wire[link.pid] = accounts[name], cmp.Or(l.wire[link.pid], new(account))
	}
	l.accounts, l.of, l.wire = accounts, of, wire
	for p := range l.excess {
		if of[p] == nil {
			delete(l.excess, p)
		}
	}
	for p := range l.faults {
		if of[p] == nil {
			delete(l.faults, p)
		}
	}
}

// charge takes a message from the account of its author's organisation, or says
// that it is empty. It is asked once for each message that is new to us and signed.
func (l *ledger) charge(author peer.ID, size int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take(l.of[author], size, l.budget.Burst)
}

// onWire is the same for a message that its author itself has sent us, before
// anything of it is checked. It has an account of its own, since the same message
// may have come by others already.
func (l *ledger) onWire(author peer.ID, size int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take(l.wire[author], size, l.budget.Site)
}

// take spends from an account; without one there is nothing to spend. l.mu is held.
func (l *ledger) take(a *account, size int, burst float64) bool {
	if a == nil {
		return false
	}
	now := l.now()
	if d := now.Sub(a.at).Seconds(); d > 0 && !a.at.IsZero() {
		a.messages, a.bytes = max(0, a.messages-d*l.budget.Messages), max(0, a.bytes-d*l.budget.Bytes)
	}
	a.at = now
	if a.messages+1 > burst || a.bytes+float64(size) > 40*l.budget.Bytes {
		return false
	}
	a.messages++
	a.bytes += float64(size)
	return true
}

// blame notes messages that a site sent itself above its budget, and says whether
// that is to end now.
func (l *ledger) blame(p peer.ID, n int) (cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.excess[p]
	if e == nil {
		e = new(excess)
		l.excess[p] = e
	}
	e.n, e.at = e.left(l.now())+float64(n), l.now()
	if e.cut || e.n < tooMuch {
		return false
	}
	e.cut = true
	return true
}

// silenced says whether a site is cut off for what it sent.
func (l *ledger) silenced(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.excess[p]
	if e == nil || !e.cut {
		return false
	}
	e.cut = e.left(l.now()) > tooMuch/2
	return e.cut
}

func (e *excess) left(now time.Time) float64 {
	if e == nil {
		return 0
	}
	return e.n * math.Exp2(-now.Sub(e.at).Minutes()/forgive.Minutes())
}

// left is what is remembered of a site's messages above its budget, and of its faults.
func (l *ledger) left(p peer.ID) (over, wrong float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.excess[p].left(l.now()), l.faults[p].left(l.now())
}

// tooWrong is as many invalid words as gossip takes before it hears a site no more.
const tooWrong = 6

// fault notes an invalid word that a site said straight, and says whether it is to be
// heard so no more.
func (l *ledger) fault(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.faults[p]
	if e == nil {
		e = new(excess)
		l.faults[p] = e
	}
	e.n, e.at = e.left(l.now())+1, l.now()
	e.cut = e.cut || math.Round(e.n) >= tooWrong // some of it is forgotten already
	return e.cut
}

// mistrusted says whether a site's words are not heard straight for now.
func (l *ledger) mistrusted(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.faults[p]
	if e == nil || !e.cut {
		return false
	}
	e.cut = e.left(l.now()) > tooWrong/2
	return e.cut
}

// admit says why a peer may not connect or be heard now, or nil.
func (t *Transport) admit(p peer.ID) error {
	if err := t.links.admit(p, t.opt.Now()); err != nil {
		return err
	}
	if t.ledger.silenced(p) {
		return errOverBudget
	}
	return nil
}

// inspect sees what a neighbour sends before anything of it is decoded further.
// What it wrote itself above its budget leaves here, before a signature of it is
// checked; every message that is new is charged to its author once the signature
// is known to be that author's. Nothing of who is no longer in the roster is read at all.
func (t *Transport) inspect(from peer.ID, rpc *pubsub.RPC) error {
	if err := t.admit(from); err != nil {
		t.refused.count(err)
		return err
	}
	kept := rpc.Publish[:0]
	over := 0
	for _, m := range rpc.Publish {
		if peer.ID(m.GetFrom()) == from && !t.ledger.onWire(from, len(m.GetData())) {
			over++
			continue
		}
		kept = append(kept, m)
	}
	rpc.Publish = kept
	if over > 0 {
		t.excessive(from, over)
	}
	return nil
}

// excessive notes words that a site sent itself above its budget.
func (t *Transport) excessive(from peer.ID, over int) {
	if t.ledger.blame(from, over) {
		t.opt.Log.Warn("a site floods: it is cut off until that is forgotten", "id", from.String(), "again in", forgive.String())
		t.note(from) // who watches the link closes it
	}
	n := t.refused.excess.Add(uint64(over))
	if before := n - uint64(over); n/1024 != before/1024 || before == 0 {
		t.opt.Log.Warn("a site sends more than its organisation's budget; what is above is dropped", "id", from.String(), "dropped", n)
	}
}

// appScore is what a site's conduct beyond the mesh's own rules is worth. The
// credit is small against every threshold: good standing buys no immunity. Invalid
// words on a stream weigh as they do in gossip.
func (t *Transport) appScore(p peer.ID) float64 {
	over, wrong := t.ledger.left(p)
	return 10 - over - 100*wrong*wrong
}

func (t *Transport) keepScores(scores map[peer.ID]float64) {
	for p, s := range scores {
		t.scores.Store(p, s)
	}
}

// direct is how many sites of other organisations a site keeps direct connections
// with, over which everything is sent whatever the mesh's shape.
const direct = 3

// directPeers chooses sites of other organisations, so that who surrounds a site
// with its own cannot cut it off. Such an agreement must be mutual: a pair is direct
// when either has the other among its first three, in an order that both ends
// compute from the roster alone.
func (t *Transport) directPeers() []peer.AddrInfo {
	self := candidate{pid: t.host.ID()}
	all := []candidate{self}
	for _, l := range t.links.all() {
		l.mu.Lock()
		all = append(all, candidate{l.pid, l.site.Organisation, l.site.addrs})
		l.mu.Unlock()
	}
	var out []peer.AddrInfo
	for _, c := range all {
		if c.organisation != self.organisation && (rank(self, c, all) < direct || rank(c, self, all) < direct) {
			out = append(out, peer.AddrInfo{ID: c.pid, Addrs: c.addrs})
		}
	}
	return out
}

// candidate is a site for direct peering. Our own organisation is "".
type candidate struct {
	pid          peer.ID
	organisation string
	addrs        []ma.Multiaddr
}

// rank is how many sites of other organisations than p's stand before c in p's order.
func rank(p, c candidate, all []candidate) (n int) {
	mine := pairing(p.pid, c.pid)
	for _, x := range all {
		if x.organisation != p.organisation && bytes.Compare(pairing(p.pid, x.pid), mine) < 0 {
			n++
		}
	}
	return n
}

func pairing(a, b peer.ID) []byte {
	if b < a {
		a, b = b, a
	}
	h := sha256.Sum256([]byte("hedgerow/direct\x00" + string(a) + "\x00" + string(b)))
	return h[:]
}
