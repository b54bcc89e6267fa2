package planetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func flowCases() []testCase {
	return []testCase{
		{"tcp session ended by FIN", dataplane.Enforce, tcpSession},
		{"tcp session begun outside", dataplane.Enforce, tcpFromOutside},
		{"tcp ended by RST", dataplane.Enforce, tcpReset},
		{"resets without a flow are kept apart", dataplane.Enforce, strayResets},
		{"what follows resets is new", dataplane.Enforce, afterResets},
		{"resets after the end", dataplane.Enforce, lateResets},
		{"retransmission", dataplane.Enforce, retransmission},
		{"handshake is proof only with the right number", dataplane.Enforce, wrongAck},
		{"handshake refused by RST", dataplane.Enforce, refused},
		{"udp in both families", dataplane.Enforce, udpFlow},
		{"seen midway", dataplane.Enforce, midway},
		{"a late SYN names the initiator", dataplane.Enforce, lateSYN},
		{"milestones", dataplane.Monitor, milestones},
		{"a key used again is another flow", dataplane.Enforce, keyReused},
		{"icmp and other protocols", dataplane.Enforce, portless},
		{"hints", dataplane.Enforce, hints},
		{"totals", dataplane.Enforce, totals},
	}
}

func tcpSession(t *testing.T, r *rig) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			before := time.Now().Add(-time.Second).UnixNano()
			s := NewSession(f.host, f.peer)
			r.play(s.Open()...)
			r.play(s.Data(0, []byte("GET / HTTP/1.1\r\n\r\n")), s.Data(1, bytes.Repeat([]byte{'x'}, 1200)),
				s.Data(1, []byte("tail")))
			r.play(s.Close()...)
			rec := one(t, r.events(), dataplane.EventEnd).Record
			checkSession(t, &rec, f, before)
		})
	}
}

func checkSession(t *testing.T, rec *flow.Record, f family, before int64) {
	hdr := uint64(40)
	if f.name == "v6" {
		hdr = 60
	}
	same(t, "key", rec.Key, key(f.host, f.peer, flow.TCP))
	same(t, "initiator", rec.Initiator(), f.host)
	same(t, "responder", rec.Responder(), f.peer)
	same(t, "initiator inside", rec.InitInside, true)
	same(t, "responder inside", rec.RespInside, false)
	same(t, "end", rec.End, flow.EndFIN)
	same(t, "validated", rec.Validated, [2]bool{true, true})
	same(t, "hint", rec.Hint, flow.HintHTTP)
	i, o := rec.Dir[0], rec.Dir[1]
	same(t, "packets out", i.Packets, 5)
	same(t, "packets in", o.Packets, 4)
	same(t, "bytes out", i.Bytes, 5*hdr+18)
	same(t, "bytes in", o.Bytes, 4*hdr+1204)
	same(t, "payload out", i.Payload, 18)
	same(t, "payload in", o.Payload, 1204)
	same(t, "squares in", o.SizeSq, 2*hdr*hdr+(hdr+1200)*(hdr+1200)+(hdr+4)*(hdr+4))
	same(t, "least size in", uint64(o.SizeMin), hdr)
	same(t, "greatest size in", uint64(o.SizeMax), hdr+1200)
	same(t, "flags out", i.Flags, flow.SYN|flow.ACK|flow.PSH|flow.FIN)
	same(t, "SYN FIN PSH RST out", [4]uint16{i.SYN, i.FIN, i.PSH, i.RST}, [4]uint16{1, 1, 1, 0})
	same(t, "SYN FIN PSH RST in", [4]uint16{o.SYN, o.FIN, o.PSH, o.RST}, [4]uint16{1, 1, 2, 0})
	same(t, "retransmissions", i.Retrans+o.Retrans, 0)
	same(t, "windows", [2]uint16{i.Window, o.Window}, [2]uint16{64240, 65160})
	same(t, "ttls", [2]uint8{i.TTL, o.TTL}, [2]uint8{64, 57})
	same(t, "kept sizes", rec.NFirst, 3)
	same(t, "sizes", rec.Sizes, [flow.First]int16{18, -1200, -4})
	same(t, "dropped", rec.Dropped, 0)
	checkTimes(t, rec, before)
}

// checkTimes checks order only: the kernel's clock runs by itself.
func checkTimes(t *testing.T, rec *flow.Record, before int64) {
	if rec.SynAckUS == 0 || rec.AckUS == 0 {
		t.Errorf("handshake times: got %d and %d us, expected both above 0", rec.SynAckUS, rec.AckUS)
	}
	now := time.Now().Add(time.Second).UnixNano()
	times := []int64{before, rec.Start, rec.Dir[1].First, rec.Dir[1].Last, rec.Last, now}
	for k := 1; k < len(times); k++ {
		if times[k] < times[k-1] {
			t.Errorf("times: number %d of %v is below the one before it", k, times)
		}
	}
	same(t, "first of initiator is start", rec.Dir[0].First, rec.Start)
	same(t, "last of initiator is last", rec.Dir[0].Last, rec.Last)
	for d, dir := range rec.Dir {
		if span := flow.SaturateUS(dir.Last - dir.First); dir.GapMax > span {
			t.Errorf("direction %d: longest gap %d us is above the span %d us", d, dir.GapMax, span)
		}
		if dir.GapSq < uint64(dir.GapMax)*uint64(dir.GapMax) {
			t.Errorf("direction %d: sum of squares %d is below the longest gap's square", d, dir.GapSq)
		}
	}
}

func tcpFromOutside(t *testing.T, r *rig) {
	for _, f := range families() {
		s := NewSession(f.peer, f.host)
		s.ServerInside = true
		r.play(s.Open()...)
		r.play(s.Send(1, flow.RST|flow.ACK, nil))
		rec := one(t, r.events(), dataplane.EventEnd).Record
		same(t, "initiator", rec.Initiator(), f.peer)
		same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{false, true})
		ep, end, ok := rec.Outside()
		same(t, "outside end", ep, f.peer)
		same(t, "outside index", end, 0)
		same(t, "outside known", ok, true)
		same(t, "validated", rec.Validated, [2]bool{true, true})
	}
}

func tcpReset(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Open()...)
	r.play(s.Send(1, flow.RST, nil))
	events := r.events()
	same(t, "events of a fourth packet that ends the flow", len(events), 1)
	rec := one(t, events, dataplane.EventEnd).Record
	same(t, "end", rec.End, flow.EndRST)
	same(t, "packets at the RST, itself among them", rec.Packets(), 4)
	same(t, "RST in", rec.Dir[1].RST, 1)
	same(t, "flows in the table", r.stats().Flows, 0)
}

func strayResets(t *testing.T, r *rig) {
	for _, f := range families() {
		s := NewSession(f.host, f.peer)
		stray := s.Send(1, flow.RST|flow.ACK, nil)
		r.play(stray, stray, stray, stray, stray)
		same(t, "events of five resets", len(r.events()), 0)
		same(t, "flows in the table", r.stats().Flows, 1)
		// One of another form is another record.
		r.play(s.Send(1, flow.RST, nil))
		rec := one(t, r.events(), dataplane.EventEnd).Record
		same(t, "only resets", rec.OnlyResets(), true)
		same(t, "initiator", rec.Initiator(), f.peer)
		same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{false, true})
		same(t, "packets", [2]uint32{rec.Dir[0].Packets, rec.Dir[1].Packets}, [2]uint32{5, 0})
		same(t, "RST", rec.Dir[0].RST, 5)
		hdr := uint64(40)
		if f.name == "v6" {
			hdr = 60
		}
		same(t, "bytes", rec.Dir[0].Bytes, 5*hdr)
		same(t, "squares", rec.Dir[0].SizeSq, 5*hdr*hdr)
		same(t, "end", rec.End, flow.EndRST)
		r.play(s.Send(1, flow.ACK, nil)) // clears it away
		r.events()
		r.play(s.Send(1, flow.RST, nil))
		r.events()
	}
}

// A connection of the same key begins anew after them, and is no part of them.
func afterResets(t *testing.T, r *rig) {
	f := families()[0]
	old := NewSession(f.host, f.peer)
	stray := old.Send(1, flow.RST, nil)
	r.play(stray, stray)
	s := NewSession(f.host, f.peer)
	r.play(s.Open()[:1]...)
	rec := one(t, r.events(), dataplane.EventEnd).Record
	same(t, "packets of the resets", [2]uint32{rec.Packets(), uint32(rec.Dir[0].RST)}, [2]uint32{2, 2})
	r.play(s.Send(1, flow.SYN|flow.ACK, nil), s.Send(0, flow.ACK, nil))
	r.play(s.Close()...)
	rec = one(t, r.events(), dataplane.EventEnd).Record
	same(t, "initiator", rec.Initiator(), f.host)
	same(t, "packets", rec.Packets(), 6)
	same(t, "end", rec.End, flow.EndFIN)
	same(t, "only resets", rec.OnlyResets(), false)
}

// What arrives after a flow's end is in no record of it, and in one of its own.
func lateResets(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Open()...)
	end := s.Send(1, flow.RST, nil)
	r.play(end, end, end)
	rec := one(t, r.events(), dataplane.EventEnd).Record
	same(t, "packets until the first reset", rec.Packets(), 4)
	r.play(s.Send(0, flow.ACK, nil))
	rec = one(t, r.events(), dataplane.EventEnd).Record
	same(t, "resets after it", [2]uint32{rec.Packets(), uint32(rec.Dir[0].RST)}, [2]uint32{2, 2})
	same(t, "flows in all", r.stats().FlowsTotal, 3)
}

func retransmission(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Open()...)
	first := s.Data(0, bytes.Repeat([]byte{1}, 100)) // crosses the wrap of the sequence number
	r.play(first, first, s.Data(0, []byte("new")))
	r.play(s.Close()...)
	rec := one(t, r.events(), dataplane.EventEnd).Record
	same(t, "retransmissions out", rec.Dir[0].Retrans, 1)
	same(t, "retransmissions in", rec.Dir[1].Retrans, 0)
	same(t, "payload out", rec.Dir[0].Payload, 203)
}

func wrongAck(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.peer, f.host) // a forger outside who never sees the SYN-ACK
	s.ServerInside = true
	syn := s.Send(0, flow.SYN, nil)
	r.play(syn, s.Send(1, flow.SYN|flow.ACK, nil))
	guess := s.Packet(0, flow.ACK, nil)
	guess.Ack += 77
	r.play(Step{s.HookOf(0), guess.Frame()}, s.Send(1, flow.RST, nil))
	rec := one(t, r.events(), dataplane.EventEnd).Record
	same(t, "validated", rec.Validated, [2]bool{false, true})
	same(t, "time of the last step", rec.AckUS, 0)
}

func refused(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Send(0, flow.SYN, nil), s.Send(1, flow.RST|flow.ACK, nil))
	rec := one(t, r.events(), dataplane.EventEnd).Record
	same(t, "validated", rec.Validated, [2]bool{false, true})
	same(t, "time to a SYN-ACK that never came", rec.SynAckUS, 0)
}

func udpFlow(t *testing.T, r *rig) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			r.play(in(f, f.peer), out(f, f.peer), in(f, f.peer), out(f, f.peer))
			rec := one(t, r.events(), dataplane.EventMilestone).Record
			same(t, "key", rec.Key, key(f.host, f.peer, flow.UDP))
			same(t, "initiator", rec.Initiator(), f.peer)
			same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{false, true})
			same(t, "packets", [2]uint32{rec.Dir[0].Packets, rec.Dir[1].Packets}, [2]uint32{2, 2})
			same(t, "payloads", [2]uint64{rec.Dir[0].Payload, rec.Dir[1].Payload}, [2]uint64{8, 8})
			same(t, "sizes", rec.Sizes, [flow.First]int16{4, -4, 4, -4})
			same(t, "validated", rec.Validated, [2]bool{})
			same(t, "end", rec.End, flow.Open)
		})
	}
}

func midway(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Data(1, []byte("late")), s.Data(0, []byte("ok")), s.Data(1, []byte("more")), s.Data(0, []byte("ok")))
	rec := one(t, r.events(), dataplane.EventMilestone).Record
	same(t, "initiator is the first sender", rec.Initiator(), f.peer)
	same(t, "validated", rec.Validated, [2]bool{})
	same(t, "inside", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{false, true})
}

func lateSYN(t *testing.T, r *rig) {
	f := families()[0]
	stray := NewSession(f.host, f.peer)
	r.play(stray.Send(1, flow.ACK, []byte("stray of an earlier connection")))
	s := NewSession(f.host, f.peer)
	r.play(s.Open()...)
	rec := one(t, r.events(), dataplane.EventMilestone).Record
	same(t, "initiator", rec.Initiator(), f.host)
	same(t, "inside", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{true, false})
	same(t, "packets", [2]uint32{rec.Dir[0].Packets, rec.Dir[1].Packets}, [2]uint32{2, 2})
	same(t, "sizes", rec.Sizes, [flow.First]int16{-30})
	same(t, "validated", rec.Validated, [2]bool{true, true})

	// The first SYN was lost on the way to us, its repetition was not: what the
	// host proved in between stays proved.
	s = NewSession(f.host, f.peer2)
	again := s.Send(0, flow.SYN, nil)
	answer := s.Send(1, flow.SYN|flow.ACK, nil)
	r.play(answer, s.Send(0, flow.ACK, nil), again, s.Data(0, []byte("x")))
	rec = one(t, r.events(), dataplane.EventMilestone).Record
	same(t, "initiator", rec.Initiator(), f.host)
	same(t, "validated", rec.Validated, [2]bool{true, false})
}

func milestones(t *testing.T, r *rig) {
	f := families()[0]
	for range 260 {
		r.play(out(f, f.peer))
	}
	var at []uint32
	for _, e := range r.events() {
		if e.Kind == dataplane.EventMilestone {
			at = append(at, e.Record.Packets())
		}
	}
	want := []uint32{4, 8, 16, 32, 64, 256}
	same(t, "number of milestones", len(at), len(want))
	for k := range min(len(at), len(want)) {
		same(t, "packets at a milestone", at[k], want[k])
	}
}

func keyReused(t *testing.T, r *rig) {
	f := families()[0]
	var ids [2]uint64
	for k := range ids {
		s := NewSession(f.host, f.peer)
		r.play(s.Open()...)
		r.play(s.Close()...)
		rec := one(t, r.events(), dataplane.EventEnd).Record
		same(t, "packets", rec.Packets(), 6)
		ids[k] = rec.ID
	}
	if ids[0] == ids[1] || ids[0] == 0 {
		t.Errorf("ids of two flows of one key: got %d and %d, expected two different ones above 0", ids[0], ids[1])
	}
}

func portless(t *testing.T, r *rig) {
	for _, f := range families() {
		echo := Packet{Src: f.host, Dst: f.peer, Proto: f.icmp, Type: 8, Payload: make([]byte, 56)}
		if f.icmp == flow.ICMPv6 {
			echo.Type = 128
		}
		back := echo
		back.Src, back.Dst, back.Type = f.peer, f.host, 0
		if f.icmp == flow.ICMPv6 {
			back.Type = 129
		}
		for range 2 {
			r.play(Step{dataplane.FromInside, echo.Frame()}, Step{dataplane.ToInside, back.Frame()})
		}
		rec := one(t, r.events(), dataplane.EventMilestone).Record
		same(t, "ports", [2]uint16{rec.Key.APort, rec.Key.BPort}, [2]uint16{})
		same(t, "payload", rec.Dir[0].Payload, 112)

		gre := Packet{Src: f.host, Dst: f.peer, Proto: 47, Payload: make([]byte, 30)}
		for range 4 {
			r.play(Step{dataplane.FromInside, gre.Frame()})
		}
		rec = one(t, r.events(), dataplane.EventMilestone).Record
		same(t, "protocol", rec.Key.Proto, 47)
		same(t, "payload", rec.Dir[0].Payload, 120)
		same(t, "kept sizes", rec.NFirst, 4)
	}
}

func hints(t *testing.T, r *rig) {
	for _, c := range []struct {
		payload string
		from    int
		want    flow.Hint
	}{
		{"\x16\x03\x01\x02\x00", 0, flow.HintTLS},
		{"SSH-2.0-x\r\n", 1, flow.HintSSH},
		{"POST /a", 0, flow.HintHTTP},
		{"TRACE /a", 0, flow.HintHTTP},
		{"220 mail", 1, flow.HintNone},
		{"\x16\x03\x09\x02\x00", 0, flow.HintNone},
		{"GET", 0, flow.HintNone},
	} {
		s := NewSession(families()[0].host, families()[0].peer)
		r.play(s.Open()...)
		r.play(s.Data(c.from, []byte(c.payload)), s.Data(1-c.from, []byte("GET /late")), s.Send(0, flow.RST, nil))
		rec := one(t, r.events(), dataplane.EventEnd).Record
		if rec.Hint != c.want {
			t.Errorf("hint of %q: got %d, expected %d", c.payload, rec.Hint, c.want)
		}
	}
}

func totals(t *testing.T, r *rig) {
	f := families()[0]
	s := NewSession(f.host, f.peer)
	r.play(s.Open()...)
	r.play(out(f, f.peer2))
	arp := append(bytes.Repeat([]byte{0xff}, 12), 0x08, 0x06)
	r.play(Step{dataplane.FromInside, append(arp, make([]byte, 28)...)})
	st := r.stats()
	same(t, "packets", st.Packets, 5)
	same(t, "bytes", st.Bytes, 3*40+32)
	same(t, "dropped", st.Dropped+st.WouldDrop, 0)
	same(t, "flows", st.Flows, 2)
	same(t, "flows in all", st.FlowsTotal, 2)
	same(t, "rules", st.RulesIntended+st.RulesEnforced, 0)
	if st.AttachMode == "" {
		t.Error("attach mode is empty")
	}
}
