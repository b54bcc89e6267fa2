package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// past puts flows into the archive: n to each peer, outbound, proved or not.
func (x *learned) past(n int, peer string, proved bool, v *feature.Vector) {
	x.t.Helper()
	var flows []store.Flow
	for i := range n {
		b, _ := v.MarshalBinary()
		flows = append(flows, store.Flow{Vector: b, Flow: event.Flow{
			Proto: "tcp", Src: "10.0.0.5", SrcPort: uint16(40000 + i), Dst: peer, DstPort: 443, Direction: "outbound",
			Start: x.now.Add(-time.Hour).UnixNano(), PktsOut: 9, PktsIn: 8, Validated: proved, End: "fin",
		}})
	}
	if err := x.o.Store.AppendFlows(flows); err != nil {
		x.t.Fatal(err)
	}
}

// searched runs what waits to be searched.
func (x *learned) searched() []api.Hunt {
	x.t.Helper()
	x.now = time.Now() // the store's clock
	ctx, cancel := context.WithCancel(x.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.hunts.run(ctx) }()
	eventually(x.t, "the searches are over", func() bool {
		hs, _ := x.Hunts(ctx)
		for _, h := range hs {
			if !h.Over() {
				return false
			}
		}
		x.hunts.mu.Lock()
		defer x.hunts.mu.Unlock()
		return len(hs) > 0 && len(x.hunts.pending) == 0
	})
	cancel()
	if err := <-ended; err != nil {
		x.t.Fatal(err)
	}
	hs, err := x.Hunts(x.t.Context())
	if err != nil {
		x.t.Fatal(err)
	}
	return hs
}

func (x *learned) told() (alerts []*event.Event, rules int) {
	for _, j := range x.outbox.drain() {
		if j.emit != nil && j.emit.Alert != nil {
			alerts = append(alerts, j.emit)
		}
		if j.block != nil {
			rules++
		}
		x.do(j)
	}
	return alerts, rules
}

// A new indicator finds what passed before it came: an incident of the past,
// examples where the peer proved its address, and no rule of any kind.
func TestIndicatorsFindThePast(t *testing.T) {
	x := newLearned(t)
	v := x.ordinary()
	x.past(5000, "198.51.100.7", true, &v)
	x.past(12, "203.0.113.9", true, &v)
	x.past(3, "203.0.113.66", false, &v)
	x.hunts.indicator("203.0.113.9 tcp/443")
	x.hunts.indicator("203.0.113.66")
	x.hunts.indicator("203.0.113.9 tcp/80") // another service
	hs := x.searched()
	if len(hs) != 1 || hs[0].By != "mesh" || hs[0].Found != 15 || len(hs[0].Incidents) != 2 || hs[0].Flows != 5015 {
		t.Fatalf("%+v", hs)
	}
	alerts, rules := x.told()
	if rules != 0 || len(alerts) == 0 {
		t.Errorf("%d rules, %d alerts: expected none, and some", rules, len(alerts))
	}
	for _, a := range alerts {
		if !a.Alert.Past || a.Alert.Detector != "indicator" || !strings.HasPrefix(a.Alert.Sentence, "found in the past: ") {
			t.Errorf("%+v", a.Alert)
		}
	}
	if hits, err := x.o.Plane.Rules(); err != nil || len(hits) != 0 {
		t.Errorf("the plane enforces %v (%v) for what passed long ago", hits, err)
	}
	labelled := map[string]int{}
	for _, a := range x.learn.attacks {
		labelled[a.incident]++
		if a.Weight != huntLabel {
			t.Errorf("weight %v", a.Weight)
		}
	}
	if len(labelled) != 1 {
		t.Errorf("examples of %d incidents: expected those of the peer that proved its address only", len(labelled))
	}
	// A person may act on it, where the address was proved.
	if err := x.Label(t.Context(), alerts[0].Alert.Incident, true); err != nil {
		t.Fatal(err)
	}
	// The same again tells nothing new of a cause that is known.
	before := x.machine.Open()
	if _, err := x.Hunt(t.Context(), api.HuntOrder{Indicators: []string{"203.0.113.0/24"}}); err != nil {
		t.Fatal(err)
	}
	if hs = x.searched(); hs[1].Found != 15 || x.machine.Open() > before {
		t.Errorf("%+v, %d open", hs[1], x.machine.Open())
	}
}

func TestHuntRefusesWhatItCannotSeek(t *testing.T) {
	x := newLearned(t)
	for want, o := range map[string]api.HuntOrder{
		"expected indicators or a model":     {},
		"holds addresses and no domains":     {Indicators: []string{"evil.example"}},
		"expected an address":                {Indicators: []string{"10.0.0.5~203.0.113.9"}},
		"no model is called":                 {Model: "beef"},
		"indicators or a model: ":            {Indicators: []string{"203.0.113.9"}, Model: "beef"},
		fmt.Sprint("expected at most ", 1e4): {Indicators: make([]string, 10_001)},
	} {
		_, err := x.Hunt(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, api.ErrInvalid) && !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%v: expected an error with %q", err, want)
		}
	}
	if _, err := x.HuntState(t.Context(), 9); !errors.Is(err, api.ErrNotFound) {
		t.Error(err)
	}
}

// A model looks back over the archive: a cause whose flows go on being unusual
// becomes an incident of the past, ordinary ones do not, and its own opinion
// labels nothing.
func TestModelsFindThePast(t *testing.T) {
	x := newLearned(t)
	x.see(1500)
	x.train()
	id := x.models.m.Roles().Active
	x.told()
	x.now = time.Now()
	for i := range 40 {
		for range 20 {
			v := x.ordinary()
			v.Has.Add(familiar)
			x.past(1, fmt.Sprintf("198.51.100.%d", i+1), true, &v)
		}
	}
	odd := feature.Vector{Has: feature.Mask{1<<24 - 1}}
	odd.Has.Add(familiar)
	for i := range 24 {
		odd.X[i] = float32(i%2)*1.6 - 0.8
	}
	x.past(10, "203.0.113.9", true, &odd)
	x.now = time.Now()
	if _, err := x.Hunt(t.Context(), api.HuntOrder{Model: id[:12]}); err != nil {
		t.Fatal(err)
	}
	hs := x.searched()
	alerts, rules := x.told()
	if len(hs) != 1 || hs[0].Found == 0 || rules != 0 {
		t.Fatalf("%+v, %d rules", hs, rules)
	}
	for _, a := range alerts {
		if a.Alert.Peer != "203.0.113.9" || !a.Alert.Past || len(a.Alert.Reasons) == 0 || a.Alert.Model != id {
			t.Errorf("%+v", a.Alert)
		}
	}
	if len(x.learn.attacks) != 0 {
		t.Errorf("a model's opinion made %d examples", len(x.learn.attacks))
	}
	// What a person says of it does.
	if err := x.Label(t.Context(), alerts[0].Alert.Incident, true); err != nil {
		t.Fatal(err)
	}
	if len(x.learn.attacks) == 0 {
		t.Error("a confirmed find of the past taught nothing")
	}
}
