package planetest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Sight is where a frame is seen: at an interface of a role ("inside", "host",
// "outside" or "sensor").
type Sight struct {
	Role     string
	Egress   bool // it leaves by the interface; else it enters
	Received bool // leaving, it had come in by some interface of the machine
}

// Placed is a plane with several interfaces. Addresses in 10.0.0.0/8 and
// fd00::/8 are its sensor's inside.
type Placed interface {
	Fixture
	See(at Sight, frame []byte) (passed bool, err error)
}

// Placement is what a plane is opened for.
type Placement struct {
	Mode  dataplane.Mode
	Roles []string // one interface each
}

// RunPlaced plays what depends on roles: that a flow is counted once, at the
// place where it can be counted, whatever interfaces its packets pass.
func RunPlaced(t *testing.T, open func(t *testing.T, p Placement) Placed) {
	for _, c := range placeCases() {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, c.Placement)
			c.run(t, &placeRig{&rig{Fixture: f, t: t}, f})
		})
	}
}

type placeCase struct {
	name string
	Placement
	run func(t *testing.T, r *placeRig)
}

func placeCases() []placeCase {
	gateway := Placement{dataplane.Enforce, []string{"inside", "outside"}}
	return []placeCase{
		{"a forwarded flow", gateway, forwarded},
		{"a translated flow at the outside", gateway, translated},
		{"the gateway's own connections", gateway, ownFlows},
		{"the gateway's own resets", gateway, ownResets},
		{"between inside hosts", Placement{dataplane.Enforce, []string{"inside"}}, betweenHosts},
		{"resets at two hooks", Placement{dataplane.Enforce, []string{"inside"}}, resetsTwice},
		{"on one arm", Placement{dataplane.Enforce, []string{"host"}}, oneArm},
		{"budgets at the outside", gateway, paidOutside},
		{"rules at both interfaces", gateway, rulesTwice},
		{"a sensor tells directions", Placement{dataplane.Monitor, []string{"sensor"}}, sensorSides},
		{"a sensor would drop", Placement{dataplane.Monitor, []string{"sensor"}}, sensorDrops},
	}
}

// placeRig adds sights to a rig.
type placeRig struct {
	*rig
	placed Placed
}

var (
	enterInside  = Sight{Role: "inside"}
	leaveInside  = Sight{Role: "inside", Egress: true, Received: true}
	enterOutside = Sight{Role: "outside"}
	leaveOutside = Sight{Role: "outside", Egress: true, Received: true}
	sendOutside  = Sight{Role: "outside", Egress: true}

	world    = ap("203.0.113.9:443")
	gatewayA = ap("198.51.100.2:50000")
	hostA    = ap("10.1.0.5:40001")
	hostB    = ap("10.1.0.6:443")
)

func (r *placeRig) see(frame []byte, at ...Sight) (passed bool) {
	r.t.Helper()
	for _, s := range at {
		passed, err := r.placed.See(s, frame)
		if err != nil {
			r.t.Fatalf("%+v: %v", s, err)
		}
		if !passed {
			return false
		}
	}
	return true
}

// converse plays a whole connection: out are the sights of the client's packets,
// back those of the server's.
func (r *placeRig) converse(client, server netip.AddrPort, out, back []Sight) {
	r.t.Helper()
	s := NewSession(client, server)
	for _, k := range []struct {
		from    int
		flags   uint8
		payload string
	}{
		{0, flow.SYN, ""}, {1, flow.SYN | flow.ACK, ""}, {0, flow.ACK, ""}, {0, flow.PSH | flow.ACK, "hello"},
		{1, flow.PSH | flow.ACK, "world"}, {0, flow.FIN | flow.ACK, ""}, {1, flow.FIN | flow.ACK, ""}, {0, flow.ACK, ""},
	} {
		at := out
		if k.from == 1 {
			at = back
		}
		if frame := s.Send(k.from, k.flags, []byte(k.payload)).Frame; !r.see(frame, at...) {
			r.t.Fatalf("a packet of end %d was dropped", k.from)
		}
	}
}

// ended is the one flow that ended, when none is left.
func (r *placeRig) ended() flow.Record {
	r.t.Helper()
	rec := one(r.t, r.events(), dataplane.EventEnd).Record
	same(r.t, "flows left", r.stats().Flows, 0)
	return rec
}

func eachWay(t *testing.T, rec *flow.Record, out, back uint32) {
	t.Helper()
	same(t, "packets", [2]uint32{rec.Dir[0].Packets, rec.Dir[1].Packets}, [2]uint32{out, back})
}

func forwarded(t *testing.T, r *placeRig) {
	r.converse(hostA, world, []Sight{enterInside, leaveOutside}, []Sight{enterOutside, leaveInside})
	rec := r.ended()
	eachWay(t, &rec, 5, 3)
	same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{true, false})
	same(t, "validated", rec.Validated, [2]bool{true, true})
	r.converse(ap("203.0.113.9:5000"), hostB, []Sight{enterOutside, leaveInside}, []Sight{enterInside, leaveOutside})
	rec = r.ended()
	eachWay(t, &rec, 5, 3)
	same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{false, true})
	same(t, "validated", rec.Validated, [2]bool{true, true})
}

func translated(t *testing.T, r *placeRig) {
	r.converse(gatewayA, world, []Sight{leaveOutside}, []Sight{enterOutside})
	same(t, "events", len(r.events()), 0)
	st := r.stats()
	same(t, "flows and packets", [2]uint64{st.FlowsTotal, st.Packets}, [2]uint64{0, 8})
}

func ownFlows(t *testing.T, r *placeRig) {
	r.converse(gatewayA, world, []Sight{sendOutside}, []Sight{enterOutside})
	rec := r.ended()
	same(t, "who calls", rec.Initiator(), gatewayA)
	eachWay(t, &rec, 5, 3)
	// The SYN that calls the gateway comes before anything of the flow is known.
	r.converse(world, gatewayA, []Sight{enterOutside}, []Sight{sendOutside})
	rec = r.ended()
	same(t, "who calls", rec.Initiator(), world)
	eachWay(t, &rec, 4, 3)
}

func ownResets(t *testing.T, r *placeRig) {
	s := NewSession(world, gatewayA)
	r.see(s.Send(0, flow.SYN, nil).Frame, enterOutside)
	r.see(s.Send(1, flow.RST|flow.ACK, nil).Frame, sendOutside)
	r.see(s.Send(0, flow.RST, nil).Frame, enterOutside)
	same(t, "flows", r.stats().FlowsTotal, 0)
}

func betweenHosts(t *testing.T, r *placeRig) {
	both := []Sight{enterInside, leaveInside}
	r.converse(hostA, hostB, both, both)
	rec := r.ended()
	eachWay(t, &rec, 5, 3)
	same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, [2]bool{true, true})
}

func resetsTwice(t *testing.T, r *placeRig) {
	both := []Sight{enterInside, leaveInside}
	s := NewSession(hostA, hostB)
	for _, step := range s.Open() {
		r.see(step.Frame, both...)
	}
	r.see(s.Send(0, flow.RST, nil).Frame, both...)
	rec := r.ended()
	eachWay(t, &rec, 3, 1)
	stray := NewSession(hostA, world).Send(0, flow.RST, nil).Frame
	for range 3 {
		r.see(stray, both...)
	}
	r.see(NewSession(hostA, world).Send(0, flow.SYN, nil).Frame, both...)
	rec = one(t, r.events(), dataplane.EventEnd).Record
	eachWay(t, &rec, 3, 0)
	same(t, "only resets", rec.OnlyResets(), true)
}

func oneArm(t *testing.T, r *placeRig) {
	both := []Sight{{Role: "host"}, {Role: "host", Egress: true, Received: true}}
	r.converse(hostA, world, both, both)
	rec := r.ended()
	eachWay(t, &rec, 5, 3)
	same(t, "validated", rec.Validated, [2]bool{true, true})
}

// What begins a connection meets the budgets at the outside, once: forwarded, it
// does not pay again at the inside.
func paidOutside(t *testing.T, r *placeRig) {
	guard, ok := r.Fixture.(dataplane.FloodGuard)
	if !ok {
		t.Fatal("the plane has no flood guard")
	}
	if err := guard.SetFlood(dataplane.Flood{Source: 10}); err != nil {
		t.Fatal(err)
	}
	passed, begun := uint64(0), time.Now()
	for i := range 40 {
		client := netip.AddrPortFrom(world.Addr(), uint16(1000+i))
		if r.see(NewSession(client, hostB).Send(0, flow.SYN, nil).Frame, enterOutside, leaveInside) {
			passed++
		}
	}
	if most := 11 + uint64(time.Since(begun)/(100*time.Millisecond)); passed < 10 || passed > most {
		t.Errorf("%d of 40 passed a budget of 10 a second in %s", passed, time.Since(begun))
	}
	st := r.stats()
	same(t, "flows", st.FlowsTotal, passed)
	same(t, "dropped", st.Dropped, 40-passed)
	same(t, "over the budget", st.Flood.BudgetDropped[dataplane.OverSource.String()], 40-passed)
}

func rulesTwice(t *testing.T, r *placeRig) {
	target := dataplane.Peer(world.Addr())
	r.apply(dataplane.Rule{Target: target, Action: dataplane.Block, Expires: later()})
	frame := NewSession(gatewayA, world).Send(0, flow.SYN, nil).Frame
	for _, at := range []Sight{enterInside, leaveInside, enterOutside, leaveOutside, sendOutside} {
		same(t, at.Role+" passed", r.see(frame, at), false)
	}
	hit, _ := r.listed(target)
	same(t, "hits", hit.Packets, 5)
}

func sensorSides(t *testing.T, r *placeRig) {
	at := []Sight{{Role: "sensor"}}
	for _, c := range []struct {
		client, server netip.AddrPort
		inside         [2]bool
	}{
		{hostA, world, [2]bool{true, false}},
		{world, hostB, [2]bool{false, true}},
		{hostA, hostB, [2]bool{true, true}},
		{ap("[fd00:1::5]:4000"), ap("[2001:db8::9]:443"), [2]bool{true, false}},
	} {
		r.converse(c.client, c.server, at, at)
		rec := r.ended()
		eachWay(t, &rec, 5, 3)
		same(t, "initiator", rec.Initiator(), c.client)
		same(t, "insides", [2]bool{rec.InitInside, rec.RespInside}, c.inside)
	}
}

func sensorDrops(t *testing.T, r *placeRig) {
	r.apply(dataplane.Rule{Target: dataplane.Peer(world.Addr()), Action: dataplane.Block, Expires: later()})
	at := []Sight{{Role: "sensor"}}
	r.converse(hostA, world, at, at)
	st := r.stats()
	same(t, "dropped, and would have", [2]uint64{st.Dropped, st.WouldDrop}, [2]uint64{0, 8})
}
