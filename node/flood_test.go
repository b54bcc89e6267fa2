package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

var floodLimits = dataplane.Flood{Source: 10, SourceNet: 20, Service: 30, Destination: 40, Breaker: 50}

// floodReport is what a plane tells of a packet to a service.
func floodReport(k dataplane.FloodKind, service string) *dataplane.Event {
	key, fromB := flow.NewKey(netip.MustParseAddrPort("203.0.113.9:1000"), netip.MustParseAddrPort(service), flow.TCP)
	ev := &dataplane.Event{Kind: dataplane.EventFlood, Flood: k, Mode: dataplane.Enforce}
	ev.Record.Key, ev.Record.InitB = key, fromB
	return ev
}

func over(kind dataplane.FloodKind, n uint64) *dataplane.FloodStats {
	return &dataplane.FloodStats{BudgetDropped: map[string]uint64{kind.String(): n}}
}

func TestAFloodIsOneRecordFromItsBeginningToItsEnd(t *testing.T) {
	w := floodWatch{site: "alder"}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	look := func(d time.Duration, n uint64) []*event.Event {
		return w.look(at(d), over(dataplane.OverService, n), &floodLimits, dataplane.Enforce)
	}
	if es := look(0, 1000); len(es) != 0 {
		t.Fatalf("what was counted before the start is told: %+v", es[0].Flood)
	}
	var told []time.Duration
	var last *event.Event
	ids := map[string]bool{}
	n := uint64(1000)
	for s := 1; s <= 2*3600+300; s++ {
		d := time.Duration(s) * time.Second
		if d <= 2*time.Hour {
			n += 5
			w.seen(at(d), floodReport(dataplane.OverService, fmt.Sprintf("10.0.0.5:%d", 80+s%20)))
		}
		for _, e := range look(d, n) {
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
			told, last, ids[e.ID] = append(told, d), e, true
		}
	}
	want := []time.Duration{time.Second, 61 * time.Second, 601 * time.Second, 4201 * time.Second, 7260 * time.Second}
	if fmt.Sprint(told) != fmt.Sprint(want) || len(ids) != 1 {
		t.Errorf("told after %v under %d ids, want %v under one", told, len(ids), want)
	}
	f := last.Flood
	if f.State != "closed" || f.Bound != "service" || f.Limit != 30 || f.Packets != 7200*5 || len(f.Targets) != maxFloodTargets ||
		!f.First.Equal(at(time.Second)) || !f.Last.Equal(at(2*time.Hour)) || f.Means == "" || f.Advice == "" {
		t.Errorf("the end is told as %+v", f)
	}
	if want := "a service gets more new flows than flood.service allows (30 a second): 36000 packets were dropped in 1h59m59s, towards 10.0.0.5:81/tcp,"; !strings.HasPrefix(f.Sentence, want) {
		t.Errorf("sentence %q, want %q", f.Sentence, want)
	}
	if strings.Contains(fmt.Sprintf("%+v", f), "203.0.113.9") {
		t.Errorf("a source that proves nothing is told: %+v", f)
	}
	if len(w.open(at(3*time.Hour), &floodLimits)) != 0 {
		t.Error("what is over is listed as open")
	}
}

// However often a flood comes and goes, it is told once a minute and bound at most.
func TestAFloodDoesNotFloodTheStore(t *testing.T) {
	var w floodWatch
	start := time.Now()
	n, kinds := uint64(0), dataplane.Budgets()
	last, records, ids := map[string]time.Time{}, 0, map[string]bool{}
	for s := range 6 * 3600 {
		now := start.Add(time.Duration(s) * time.Second)
		counts := &dataplane.FloodStats{BudgetDropped: map[string]uint64{}}
		if s%65 == 0 { // each time just when it is over
			n += 1000
		}
		for _, k := range kinds {
			counts.BudgetDropped[k.String()] = n
			w.seen(now, floodReport(dataplane.BreakerClosed, "10.0.0.5:80")) // which begins nothing
		}
		for _, e := range w.look(now, counts, &floodLimits, dataplane.Monitor) {
			if before := last[e.Flood.Bound]; now.Sub(before) < floodGap {
				t.Fatalf("%s told %s after the last time", e.Flood.Bound, now.Sub(before))
			}
			last[e.Flood.Bound], ids[e.ID] = now, true
			records++
		}
	}
	if len(ids) != len(kinds) || records > len(kinds)*6*60 || records == 0 {
		t.Errorf("%d records of %d floods, want at most one a minute and kind, of one flood each", records, len(ids))
	}
}

func TestFloodsOfTheBreakerAndOfChallenges(t *testing.T) {
	for name, c := range map[string]struct {
		kind  dataplane.FloodKind
		mode  dataplane.Mode
		drops bool
		stats dataplane.FloodStats
		want  string
	}{
		"breaker":          {dataplane.BreakerOpened, dataplane.Enforce, false, dataplane.FloodStats{Untracked: 7}, "(50 a second): 7 packets passed without being followed"},
		"breaker, monitor": {dataplane.BreakerOpened, dataplane.Monitor, false, dataplane.FloodStats{Untracked: 7}, ": 7 packets passed without being followed"},
		"breaker drops":    {dataplane.BreakerOpened, dataplane.Enforce, true, dataplane.FloodStats{BreakerDropped: 7}, ": 7 packets were dropped"},
		"challenge":        {dataplane.Challenged, dataplane.Enforce, false, dataplane.FloodStats{Challenges: 7}, "(30 a second): 7 connection attempts were answered by a demand for proof"},
		"source, monitor":  {dataplane.OverSource, dataplane.Monitor, false, *over(dataplane.OverSource, 7), "(10 a second): 7 packets would have been dropped"},
	} {
		limits := floodLimits
		limits.BreakerDrops = c.drops
		var w floodWatch
		now := time.Now()
		w.look(now, &dataplane.FloodStats{}, &limits, c.mode)
		ev := floodReport(c.kind, "10.0.0.5:80")
		ev.Mode = c.mode
		w.seen(now, ev)
		es := w.look(now, &c.stats, &limits, c.mode)
		if len(es) != 1 || es[0].Flood.State != "open" || es[0].Flood.Mode != c.mode.String() || !strings.Contains(es[0].Flood.Sentence, c.want+" in 1s, towards 10.0.0.5:80/tcp") {
			t.Errorf("%s: %+v, want %q", name, es, c.want)
		}
		// An open breaker tells nothing more until it closes.
		c.stats.BreakerOpen[dataplane.ToInside] = true
		w.look(now.Add(50*time.Second), &c.stats, &limits, c.mode)
		open := len(w.open(now.Add(2*time.Minute), &limits))
		es = w.look(now.Add(100*time.Second), &c.stats, &limits, c.mode)
		if over := len(es) == 1 && es[0].Flood.State == "closed"; open != 1 || over != (c.kind != dataplane.BreakerOpened) {
			t.Errorf("%s: after 100s: %+v", name, es)
		}
	}
}

// A report that the ring lost is made up for by its count; a plane that counts
// anew does no harm.
func TestFloodsAreToldByTheirCountsToo(t *testing.T) {
	var w floodWatch
	now := time.Now()
	for i, n := range []uint64{100, 107, 3, 5} {
		w.look(now.Add(time.Duration(i)*time.Second), over(dataplane.OverSource, n), &floodLimits, dataplane.Enforce)
	}
	if es := w.open(now, &floodLimits); len(es) != 1 || es[0].Flood.Packets != 9 || len(es[0].Flood.Targets) != 0 {
		t.Errorf("found %+v", es)
	}
}

func TestAFloodIsStoredShownAndClosedAfterARestart(t *testing.T) {
	s := sites(t, "alder")[0]
	s.stop()
	s.o.Flood = dataplane.Flood{Source: 5}
	s.start()
	for i := range uint16(40) {
		s.pass(udp(fmt.Sprintf("203.0.113.9:%d", 1000+i), "10.0.0.5:53", dataplane.ToInside))
	}
	find := func(state string) (e *event.Event) {
		t.Helper()
		eventually(t, "a flood is "+state, func() bool {
			es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindFlood}, Limit: 10})
			if err != nil || len(es) != 1 || es[0].Flood.State != state {
				return false
			}
			e = es[0]
			return true
		})
		return e
	}
	e := find("open")
	if e.Flood.Bound != "source" || e.Flood.Packets == 0 || e.Flood.Packets > 40 || e.Flood.Targets[0] != "10.0.0.5:53/udp" {
		t.Errorf("stored as %+v", e.Flood)
	}
	st, err := s.node.Status(t.Context())
	if err != nil || len(st.Floods) != 1 || st.Floods[0].ID != e.ID {
		t.Errorf("status: %+v, %v", st.Floods, err)
	}
	x, err := s.node.Explain(t.Context(), e.ID)
	if err != nil || x.Flood == nil || x.Flood.Flood.Advice == "" || x.Sentence != x.Flood.Flood.Sentence {
		t.Errorf("explanation %+v, %v", x, err)
	}
	if bs, err := s.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
		t.Errorf("a flood blocked %+v, %v", bs, err)
	}
	s.stop()
	s.start()
	if again := find("closed"); again.ID != e.ID {
		t.Errorf("closed under the id %s, was %s", again.ID, e.ID)
	}
}
