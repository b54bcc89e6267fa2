package planetest

import (
	"bytes"
	"crypto/tls"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func helloCases() []testCase {
	return []testCase{
		{"what a TLS client says is read", dataplane.Monitor, helloOverTCP},
		{"what a QUIC client says is read", dataplane.Monitor, helloOverQUIC},
		{"what is no hello is not read", dataplane.Enforce, helloOfNobody},
	}
}

func (r *rig) watchHellos(on bool) {
	r.t.Helper()
	p, ok := r.Fixture.(dataplane.Hellos)
	if !ok {
		r.t.Fatal("the plane reads no hellos")
	}
	if err := p.WatchHellos(on); err != nil {
		r.t.Fatalf("watch hellos: %v", err)
	}
}

// greeting is a hello of about 1,700 bytes: its key shares include one that
// withstands quantum computers.
func greeting() []byte {
	return ClientHello(&tls.Config{ServerName: "shop.example", NextProtos: []string{"h2"}})
}

// told are the hellos of a flow's pending reports, in order.
func (r *rig) told() []*flow.Hello {
	r.t.Helper()
	var out []*flow.Hello
	for _, e := range r.events() {
		if e.Kind == dataplane.EventMilestone || e.Kind == dataplane.EventEnd {
			out = append(out, e.Record.Hello)
		}
	}
	return out
}

// expectTold wants so many reports without a hello, and then one with it.
func (r *rig) expectTold(what string, without int, server string) {
	r.t.Helper()
	got := r.told()
	if len(got) != without+1 {
		r.t.Fatalf("%s: %d reports, expected %d", what, len(got), without+1)
	}
	for i, h := range got[:without] {
		if h != nil {
			r.t.Errorf("%s: report %d has the hello %+v", what, i, h)
		}
	}
	h := got[without]
	if h == nil || h.Told != flow.ToldAll || h.Name != server || !h.Named || h.Version != flow.TLS13 || len(h.JA4) != 36 {
		r.t.Errorf("%s: got %+v, expected what the client of %s said", what, h, server)
	}
}

// halves plays a session whose hello comes in two segments, and then as much as
// brings it to its eighth packet.
func (r *rig) halves(s *Session, msg []byte, swap bool) {
	r.t.Helper()
	r.play(s.Open()...)
	a, b := s.Data(0, msg[:1000]), s.Data(0, msg[1000:])
	if swap { // the whole, and of it once more the first half
		s.Seq[0] -= uint32(len(msg))
		a = s.Data(0, msg[:1000])
		s.Seq[0] -= 1000
		r.play(a)
		a, b = s.Data(0, msg[:1000]), s.Data(0, msg[1000:])
	}
	r.play(a, b, s.Data(1, []byte("server")))
	for range 2 {
		r.play(s.Send(0, flow.ACK, nil))
	}
}

func helloOverTCP(t *testing.T, r *rig) {
	msg := greeting()
	r.watchHellos(true)
	for i, f := range families() {
		for _, c := range []struct {
			what   string
			inside bool
			swap   bool
		}{{"outwards", false, false}, {"inwards", true, false}, {"sent again", false, true}} {
			s := NewSession(f.host, port(f.peer, uint16(1000+i)))
			if c.inside {
				s = NewSession(port(f.stranger, uint16(1000+i)), f.host2)
				s.ServerInside = true
			}
			s.Client = port(s.Client, s.Client.Port()+uint16(len(c.what)))
			r.halves(s, msg, c.swap)
			r.expectTold(f.name+" "+c.what, 1, "shop.example")
			r.play(s.Close()...)
			r.expectTold(f.name+" "+c.what+", at its end", 0, "shop.example")
		}
	}
	r.watchHellos(false)
	s := NewSession(families()[0].host, families()[0].peer2)
	r.halves(s, msg, false)
	for _, h := range r.told() {
		if h != nil {
			t.Errorf("nobody watches any more: got %+v", h)
		}
	}
}

func helloOverQUIC(t *testing.T, r *rig) {
	msg, err := ClientHelloQUIC(&tls.Config{ServerName: "quic.example", NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	r.watchHellos(true)
	for i, f := range families() {
		for _, v2 := range []bool{false, true} {
			one := Initial{V2: v2, ID: []byte("chosen by the client"), Frames: CryptoFrame(300, msg[300:]), Size: 1250}
			two := one
			two.Frames, two.Number = CryptoFrame(0, msg[:300]), 1
			var sealed [2][]byte
			for k, p := range []Initial{one, two} {
				if sealed[k], err = p.Seal(); err != nil {
					t.Fatal(err)
				}
			}
			server := port(f.peer, uint16(2000+2*i))
			if v2 {
				server = port(f.peer, server.Port()+1)
			}
			r.play(Datagram(dataplane.FromInside, f.host, server, sealed[0]), Datagram(dataplane.FromInside, f.host, server, sealed[1]),
				Datagram(dataplane.ToInside, server, f.host, make([]byte, 1250)), Datagram(dataplane.ToInside, server, f.host, make([]byte, 1250)))
			r.expectTold(f.name, 0, "quic.example")
		}
	}
}

// helloOfNobody: what is sent by the responder, what does not look like TLS, what
// comes later than the third payload packet, what is dropped, too short for QUIC.
func helloOfNobody(t *testing.T, r *rig) {
	msg := greeting()
	small := ClientHello(&tls.Config{ServerName: "shop.example", CurvePreferences: []tls.CurveID{tls.X25519}})
	quic, err := Initial{ID: []byte("somebody"), Frames: []byte{1}, Size: 1200}.Seal()
	if err != nil {
		t.Fatal(err)
	}
	r.watchHellos(true)
	for _, f := range families() {
		for what, play := range map[string]func(s *Session){
			"of the responder": func(s *Session) {
				r.play(s.Data(1, msg[:1000]), s.Data(1, msg[1000:]))
			},
			"after something else": func(s *Session) {
				r.play(s.Data(0, []byte("220 ready")), s.Data(0, small))
			},
			"with its second half late": func(s *Session) {
				r.play(s.Data(0, msg[:1000]), s.Data(1, []byte("a")), s.Data(1, []byte("b")), s.Data(0, msg[1000:]))
			},
			"behind a first segment that was lost": func(s *Session) {
				s.Seq[0] += 1000
				r.play(s.Data(0, msg[1000:]))
			},
		} {
			s := NewSession(port(f.host, f.host.Port()+uint16(len(what))), f.peer)
			r.play(s.Open()...)
			play(s)
			r.play(s.Close()...)
			for _, h := range r.told() {
				if h != nil {
					t.Errorf("%s: a hello %s: got %+v", f.name, what, h)
				}
			}
		}
		short := Datagram(dataplane.FromInside, f.host, f.peer, quic[:1199])
		other := Datagram(dataplane.FromInside, f.host, port(f.peer, 7), bytes.Repeat([]byte{0x43}, 1250))
		r.play(short, short, short, short, other, other, other, other)
		for _, h := range r.told() {
			if h != nil {
				t.Errorf("%s: no datagram that begins a connection: got %+v", f.name, h)
			}
		}
		s := NewSession(port(f.host2, 77), f.peer)
		r.play(s.Open()...)
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		r.expect(false, "a blocked hello", s.Data(0, small))
		if err := r.Remove(dataplane.Peer(f.peer.Addr())); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.play(s.Close()...)
		for _, h := range r.told() {
			if h != nil {
				t.Errorf("%s: a hello that was dropped: got %+v", f.name, h)
			}
		}
	}
	same(t, "hellos lost", r.stats().HellosLost, 0)
}
