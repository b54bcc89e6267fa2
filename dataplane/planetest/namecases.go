package planetest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func nameCases() []testCase {
	return []testCase{
		{"DNS answers are shown to who watches", dataplane.Enforce, namesShown},
		{"only answers to queries are shown", dataplane.Enforce, namesAsked},
		{"a long answer is cut", dataplane.Monitor, namesCut},
	}
}

// dns is a message of the given length: a query, or with answer an answer.
func dns(id uint16, answer bool, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	binary.BigEndian.PutUint16(b, id)
	b[2] = 0x01
	if answer {
		b[2] = 0x81
	}
	return b
}

func (r *rig) watchNames(on bool) {
	r.t.Helper()
	n, ok := r.Fixture.(dataplane.Names)
	if !ok {
		r.t.Fatal("the plane shows no names")
	}
	if err := n.WatchNames(on); err != nil {
		r.t.Fatalf("watch names: %v", err)
	}
}

// answers are the pending events of that kind.
func (r *rig) answers() []dataplane.Event {
	r.t.Helper()
	var out []dataplane.Event
	err := r.Poll(func(e *dataplane.Event) {
		if e.Kind == dataplane.EventAnswer {
			a := *e.Answer
			a.Message = bytes.Clone(a.Message)
			out = append(out, dataplane.Event{Kind: e.Kind, At: e.At, Answer: &a})
		}
	})
	if err != nil {
		r.t.Fatalf("poll: %v", err)
	}
	return out
}

func (f family) resolver() netip.AddrPort { return netip.AddrPortFrom(f.peer.Addr(), 53) }

func namesShown(t *testing.T, r *rig) {
	for _, f := range families() {
		ask := Datagram(dataplane.FromInside, f.host, f.resolver(), dns(7, false, 40))
		tell := Datagram(dataplane.ToInside, f.resolver(), f.host, dns(7, true, 90))
		r.play(ask, tell)
		same(t, "answers while nobody watches", len(r.answers()), 0)
		r.watchNames(true)
		r.play(ask, tell, tell)
		all := r.answers()
		if len(all) != 1 {
			t.Fatalf("%s: answers: got %d, expected the first of two", f.name, len(all))
		}
		a := all[0].Answer
		same(t, "client", a.Client, f.host.Addr())
		same(t, "resolver", a.Resolver, f.resolver().Addr())
		if !bytes.Equal(a.Message, dns(7, true, 90)) {
			t.Errorf("%s: message: got %x, expected what was sent", f.name, a.Message)
		}
		r.play(ask, tell)
		same(t, "answers to the next query", len(r.answers()), 1)
		r.watchNames(false)
		r.play(ask, tell)
		same(t, "answers when nobody watches any more", len(r.answers()), 0)
	}
}

func namesAsked(t *testing.T, r *rig) {
	r.watchNames(true)
	for _, f := range families() {
		answer := func(from, to netip.AddrPort, id uint16) Step {
			return Datagram(dataplane.ToInside, from, to, dns(id, true, 60))
		}
		other := netip.AddrPortFrom(f.host.Addr(), f.host.Port()+1)
		r.play(Datagram(dataplane.FromInside, f.host, f.resolver(), dns(9, false, 40)))
		r.play(
			answer(f.resolver(), f.host, 8),                                         // another id
			answer(f.resolver(), other, 9),                                          // another port of the client
			answer(f.resolver(), f.host2, 9),                                        // another client
			answer(netip.AddrPortFrom(f.peer2.Addr(), 53), f.host, 9),               // who was not asked
			answer(netip.AddrPortFrom(f.peer.Addr(), 54), f.host, 9),                // not from the resolver's port
			Datagram(dataplane.FromInside, f.host, f.resolver(), dns(10, true, 40)), // no query
			answer(f.resolver(), f.host, 10),
			Datagram(dataplane.ToInside, f.resolver(), f.host, dns(9, false, 60)),                               // no answer
			Datagram(dataplane.ToInside, f.stranger, netip.AddrPortFrom(f.host.Addr(), 53), dns(11, false, 40)), // a query from outside
			Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 53), f.stranger, dns(11, true, 40)),
			Datagram(dataplane.ToInside, f.resolver(), f.host, dns(9, true, 11)), // too short for a header
		)
		p := Packet{Src: f.resolver(), Dst: f.host, Proto: flow.TCP, Flags: flow.ACK, Payload: dns(9, true, 60)}
		r.play(Step{dataplane.ToInside, p.Frame()})
		same(t, "answers that nobody asked for", len(r.answers()), 0)
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		r.expect(false, "a blocked answer", answer(f.resolver(), f.host, 9))
		same(t, "answers that were dropped", len(r.answers()), 0)
		if err := r.Remove(dataplane.Peer(f.peer.Addr())); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.play(answer(f.resolver(), f.host, 9))
		same(t, "the one that was asked for", len(r.answers()), 1)
	}
}

func namesCut(t *testing.T, r *rig) {
	r.watchNames(true)
	for _, f := range families() {
		for size, want := range map[int]int{12: 12, 13: 13, 1232: 1232, 1233: 1232, 1400: 1232} {
			r.play(Datagram(dataplane.FromInside, f.host, f.resolver(), dns(3, false, 40)),
				Datagram(dataplane.ToInside, f.resolver(), f.host, dns(3, true, size)))
			all := r.answers()
			if len(all) != 1 || !bytes.Equal(all[0].Answer.Message, dns(3, true, size)[:want]) {
				t.Errorf("%s: an answer of %d bytes: got %d events, expected one with the first %d bytes", f.name, size, len(all), want)
			}
		}
	}
}
