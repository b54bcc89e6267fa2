package gossip_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
)

// meshsub is the protocol of gossipsub that the attacker of these tests speaks.
const meshsub = "/meshsub/1.1.0"

// spoken is how many words each honest end says while others attack.
const spoken = 40

// talkAmong has the ends talk, each with all others, and waits until every word of
// everybody is delivered to everybody. What is asserted is delivery, never time.
func talkAmong(t *testing.T, ends []*end) {
	t.Helper()
	var work sync.WaitGroup
	for _, e := range ends {
		work.Go(func() {
			for i := range spoken {
				if err := e.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "honest %d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	until(t, "everything honest is delivered", func() bool { return !slices.ContainsFunc(ends, func(e *end) bool { return !e.heardAll(ends) }) })
}

func (e *end) heardAll(ends []*end) bool {
	return !slices.ContainsFunc(ends, func(x *end) bool { return x != e && e.ear.count(x.id, "honest") != spoken })
}

// score is what an end thinks of another.
func (e *end) score(id identity.ID) float64 {
	for _, p := range e.Peers() {
		if p.ID == id {
			return p.Score
		}
	}
	return 0
}

// stranger is a libp2p host of our own making, under the nth key.
func stranger(t *testing.T, n byte) libhost.Host {
	t.Helper()
	priv, err := crypto.UnmarshalEd25519PrivateKey(key(t, n).Private())
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(priv), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (e *end) info(t *testing.T) peer.AddrInfo {
	t.Helper()
	for _, a := range e.Addrs() {
		if x, err := peer.AddrInfoFromString(a + "/p2p/" + string(e.id)); err == nil {
			return *x
		}
	}
	t.Fatalf("no address of %s", e.id)
	return peer.AddrInfo{}
}

// field is one of a protocol buffer: bytes under a number.
func field(n byte, parts ...[]byte) []byte {
	b := slices.Concat(parts...)
	return append(binary.AppendUvarint([]byte{n<<3 | 2}, uint64(len(b))), b...)
}

// frame is an RPC of gossipsub as it goes over a stream
// (https://github.com/libp2p/specs/tree/master/pubsub).
func frame(fields ...[]byte) []byte {
	b := slices.Concat(fields...)
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// subscribe says that its sender wants a topic.
func subscribe(topic string) []byte {
	return frame(field(1, []byte{1 << 3, 1}, field(2, []byte(topic))))
}

// control offers what does not exist, and joins and leaves the mesh.
func control(topic string) []byte {
	name := field(1, []byte(topic))
	offer := [][]byte{name}
	for i := range 500 {
		offer = append(offer, field(2, fmt.Appendf(nil, "nothing %d", i)))
	}
	return frame(field(3, field(1, offer...), field(3, name), field(4, name)))
}

// others is the roster of an end among ends, with more sites.
func others(t *testing.T, ends []*end, self *end, more ...federation.Site) (out []federation.Site) {
	for i, x := range ends {
		if x != self {
			s := siteOf(t, byte(i+1))
			s.Organisation, s.Addrs = fmt.Sprintf("org%d", i), x.Addrs()
			out = append(out, s)
		}
	}
	return append(out, more...)
}

// TestControlSpam: a member that floods the others with offers of messages which do
// not exist, and joins and leaves their meshes without end, keeps them from nothing
// and loses its standing; nobody else does.
func TestControlSpam(t *testing.T) {
	ends := ring(t, 4, gossip.Options{})
	h, evil := stranger(t, 9), siteOf(t, 9)
	h.SetStreamHandler(meshsub, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	topic := "/hedgerow/1/test/" + string(federation.TopicIntel)
	hello, burst := subscribe(topic), control(topic)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for _, e := range ends {
		if err := e.SetRoster(others(t, ends, e, evil)); err != nil {
			t.Fatal(err)
		}
		if err := h.Connect(t.Context(), e.info(t)); err != nil {
			t.Fatal(err)
		}
		s, err := h.NewStream(t.Context(), e.info(t).ID, meshsub)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(hello); err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			defer func() { _ = s.Reset() }()
			for ctx.Err() == nil {
				if _, err := s.Write(burst); err != nil {
					return // they have had enough of it
				}
			}
		})
	}
	talkAmong(t, ends)
	for _, e := range ends {
		until(t, "the spammer loses its standing", func() bool { return e.score(evil.ID) < 0 })
		for _, x := range ends {
			if e != x && e.score(x.id) < 0 {
				t.Errorf("%s has score %g for what another did", x.id.Short(), e.score(x.id))
			}
		}
	}
}

// TestSybilsOutsideTheRoster: however many keys somebody makes who is in no roster,
// none is let in, and members hear each other as before.
func TestSybilsOutsideTheRoster(t *testing.T) {
	ends := ring(t, 3, gossip.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	const sybils = 20
	var doors []peer.AddrInfo
	for _, e := range ends {
		doors = append(doors, e.info(t))
	}
	for n := range byte(sybils) {
		h := stranger(t, 100+n)
		work.Go(func() {
			again := time.NewTicker(5 * time.Millisecond)
			defer again.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				_ = h.Connect(ctx, doors[i%len(doors)]) // it is the others who judge
				<-again.C
			}
		})
	}
	until(t, "they are turned away", func() bool {
		refused := 0
		for _, e := range ends {
			refused += int(e.Refusals()["stranger"])
		}
		return refused >= sybils
	})
	talkAmong(t, ends)
	for _, e := range ends {
		if ps := e.Peers(); len(ps) != len(ends)-1 {
			t.Errorf("%d peers: expected %d", len(ps), len(ends)-1)
		}
	}
}

// TestEclipse: a site all of whose neighbours but one are members that pass nothing on
// hears by that one also an author whom it does not reach itself, and is heard by it.
func TestEclipse(t *testing.T) {
	const crowd = 12 // more than a mesh has room for
	var all []federation.Site
	for i := range byte(crowd) {
		s := siteOf(t, i+1)
		s.Organisation = fmt.Sprintf("org%d", i)
		all = append(all, s)
	}
	var ends []*end
	for i := range all {
		opt := gossip.Options{Listen: []string{loopback}, Roster: slices.Delete(slices.Clone(all), i, i+1)}
		if i == crowd-1 { // the author knows where the bridge is, and nobody where the author is
			for k := range opt.Roster[1:] {
				opt.Roster[k+1].Addrs = nil
			}
		}
		e := runEnd(t, byte(i+1), opt)
		e.ear.deaf.Store(i > 1 && i < crowd-1)
		all[i].Addrs = e.Addrs()
		ends = append(ends, e)
	}
	bridge, victim, author := ends[0], ends[1], ends[crowd-1]
	until(t, "the victim is surrounded", func() bool {
		return !slices.ContainsFunc(ends[:crowd-1], func(e *end) bool { return e != victim && !victim.up(e.id) }) && bridge.up(author.id)
	})
	pair := []*end{victim, author}
	until(t, "they hear of each other", func() bool {
		for _, e := range pair {
			_ = e.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "hello %d", time.Now().UnixNano()/1e8))
		}
		return victim.ear.count(author.id, "hello") > 0 && author.ear.count(victim.id, "hello") > 0
	})
	talkAmong(t, pair)
	if victim.up(author.id) {
		t.Error("they are connected: the bridge was not needed")
	}
}
