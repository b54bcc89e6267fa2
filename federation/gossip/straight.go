package gossip

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// The words of the rounds between organisations go straight from their author to every
// site, over a stream to each that stays open. Each of them must reach everybody, most
// sites are connected with all others, and by gossip a word came to each of fifty some
// ten times: reading the copies was most of what a round cost.
//
// Gossip carries what this way cannot: all words while a site of the roster is not
// connected or takes no stream, what a stream failed to take, and what is said again, for
// then somebody has not heard it. A word that came straight and comes again by gossip is
// passed on unread.
const (
	straightFor = federation.TopicCouncil
	straightly  = protocol.ID("/hedgerow/1//council")

	outboxWords = 256              // that wait for one site; more go by gossip
	takeWithin  = 10 * time.Second // what a stream is given
	notAgainFor = 30 * time.Second // a stream is opened after one failed
	frameHead   = 4                // bytes of a word's length before it
)

// outbox is what waits for the stream to one site.
type outbox struct {
	signal chan struct{}

	mu     sync.Mutex
	words  [][]byte
	barred time.Time // no stream before this
}

func newOutbox() *outbox { return &outbox{signal: make(chan struct{}, 1)} }

// push says whether the word is taken.
func (o *outbox) push(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.words) >= outboxWords {
		return false
	}
	o.words = append(o.words, b)
	select {
	case o.signal <- struct{}{}:
	default:
	}
	return true
}

func (o *outbox) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	words := o.words
	o.words = nil
	return words
}

func (o *outbox) open(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !now.Before(o.barred)
}

func (o *outbox) bar(until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.barred = until
}

// straight sends a word to every site of the roster and says whether it needs no gossip.
func (t *Transport) straight(b []byte) bool {
	if !t.said.add(sha256.Sum256(b)) {
		return false
	}
	now, links := time.Now(), t.links.all()
	for _, l := range links {
		if !l.out.open(now) || !t.connected(l.pid) {
			return false
		}
	}
	word, all := append([]byte(nil), b...), len(links) > 0
	for _, l := range links {
		all = l.out.push(word) && all
	}
	return all
}

// speak hands a site what waits for it, until it leaves the roster.
func (t *Transport) speak(ctx context.Context, l *peerLink) {
	var s network.Stream
	for {
		select {
		case <-ctx.Done():
		case <-l.left:
		case <-l.out.signal:
			words := l.out.take()
			var err error
			if s, err = t.hand(ctx, l.pid, s, words); err != nil {
				l.out.bar(time.Now().Add(notAgainFor))
				t.opt.Log.Debug("a site takes no words straight; they go by gossip", "site", l.at().Name, "error", err)
				t.instead(ctx, words)
			}
			continue
		}
		if s != nil {
			_ = s.Reset()
		}
		return
	}
}

// hand writes words to a stream, and to a new one when the old one, or none, does not
// take them. It returns the stream to go on with.
func (t *Transport) hand(ctx context.Context, p peer.ID, s network.Stream, words [][]byte) (network.Stream, error) {
	var frames []byte
	for _, b := range words {
		frames = append(binary.BigEndian.AppendUint32(frames, uint32(len(b))), b...)
	}
	if s != nil {
		if write(s, frames) == nil {
			return s, nil
		}
		_ = s.Reset() // it ended with its connection, perhaps
	}
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	s, err := t.host.NewStream(network.WithAllowLimitedConn(network.WithNoDial(within, "council"), "council"), p, straightly)
	if err != nil {
		return nil, err
	}
	if err := write(s, frames); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

func write(s network.Stream, b []byte) error {
	if err := s.SetWriteDeadline(time.Now().Add(takeWithin)); err != nil {
		return err
	}
	_, err := s.Write(b)
	return err
}

// instead has gossip carry words, each once, however many sites did not take it.
func (t *Transport) instead(ctx context.Context, words [][]byte) {
	for _, b := range words {
		if !t.gossiped.add(sha256.Sum256(b)) {
			continue
		}
		if err := t.publish(ctx, straightFor, b); err != nil && ctx.Err() == nil {
			t.opt.Log.Debug("a word could not be gossiped", "error", err)
		}
	}
}

// hear reads what a site says straight. Its author is who is at the other end; budgets
// are as for gossip. A second stream of a site ends the first.
func (t *Transport) hear(ctx context.Context, h federation.Handler, s network.Stream) {
	defer func() { _ = s.Reset() }()
	from := s.Conn().RemotePeer()
	l := t.links.get(from)
	if l == nil || t.ledger.mistrusted(from) {
		return
	}
	l.mu.Lock()
	before := l.heardOn
	l.heardOn = s
	l.mu.Unlock()
	if before != nil {
		_ = before.Reset()
	}
	err := t.listen(ctx, h, from, bufio.NewReader(s))
	t.opt.Log.Debug("a site's words are no longer heard straight", "id", from.String(), "error", err)
}

// listen reads words until that ends, and says why.
func (t *Transport) listen(ctx context.Context, h federation.Handler, from peer.ID, r io.Reader) error {
	id, buf := identity.ID(from.String()), make([]byte, wire.MaxSmall)
	for {
		b, err := readWord(r, buf)
		if err != nil {
			return err
		}
		if err := t.admit(from); err != nil {
			t.refused.count(err)
			return err
		}
		if !t.ledger.onWire(from, len(b)) || !t.ledger.charge(from, len(b)) {
			t.excessive(from, 1)
			continue
		}
		switch h.Receive(ctx, straightFor, id, b) {
		case federation.Accept:
			t.heard.add(sha256.Sum256(b))
		case federation.Reject:
			if t.ledger.fault(from) {
				return fmt.Errorf("gossip: too many invalid words")
			}
		}
	}
}

// readWord reads one word into buf.
func readWord(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:frameHead]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(buf)
	if n == 0 || int64(n) > int64(len(buf)) {
		return nil, fmt.Errorf("%w: a word of %d bytes: expected 1 to %d", ErrTooBig, n, len(buf))
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

// recent remembers the last sums that were added, some thousands. Its zero value is ready.
type recent struct {
	mu          sync.Mutex
	now, before map[[32]byte]struct{}
}

const recentSums = 4096

// add says whether the sum is new.
func (r *recent) add(sum [32]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.knows(sum) {
		return false
	}
	if r.now == nil || len(r.now) >= recentSums {
		r.before, r.now = r.now, make(map[[32]byte]struct{})
	}
	r.now[sum] = struct{}{}
	return true
}

func (r *recent) has(sum [32]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.knows(sum)
}

// knows is has; r.mu is held.
func (r *recent) knows(sum [32]byte) bool {
	_, now := r.now[sum]
	_, before := r.before[sum]
	return now || before
}
