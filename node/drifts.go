package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner/drift"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// drifts watches whether traffic is still what the model was trained on. It is
// under the node's lock.
type drifts struct {
	d     *drift.Detector
	hosts map[uint64]netip.Addr // inside, for the words
	last  *api.Drift
	due   time.Time // when what is new has waited long enough to teach
}

// maxNamed bounds the inside hosts that can be named.
const maxNamed = 4096

func newDrifts() drifts {
	return drifts{d: drift.New(drift.Options{}), hosts: map[uint64]netip.Addr{}}
}

// renew begins anew with a model that learnt other traffic.
func (x *drifts) renew(d *drift.Detector) { x.d, x.last, x.due = d, nil, time.Time{} }

// reference is a detector for the traffic that the champion learnt.
func (l *learning) reference() *drift.Detector {
	l.mu.Lock()
	vs := l.pool.Mature(l.cutoff, l.suspected)
	_, causes := l.pool.Later(time.Time{}, l.suspected)
	l.mu.Unlock()
	slices.Sort(causes)
	d := drift.New(drift.Options{})
	d.Reference(vs, len(slices.Compact(causes)))
	return d
}

// drifted counts a report for the detector. Known attacks are no drift. The
// caller holds n.mu.
func (n *Node) drifted(now time.Time, ev *dataplane.Event, j enforce.Judgement, v *feature.Vector, low float64, incident string) {
	if !j.Judged || incident != "" && n.machine.Attack(incident) {
		return
	}
	x := &n.drifts
	a := insideOf(&ev.Record)
	host, cause := hashAddr(a), causeHash(&ev.Record)
	if _, known := x.hosts[host]; !known && len(x.hosts) < maxNamed {
		x.hosts[host] = a
	}
	n.foundDrift(now, x.d.Report(v, host, cause))
	if ev.Kind == dataplane.EventEnd {
		n.foundDrift(now, x.d.Score(low, host, cause))
	}
}

// foundDrift tells of a drift, and plans a new model for when there is enough of
// what is new that has waited.
func (n *Node) foundDrift(now time.Time, d *drift.Drift) {
	if d == nil {
		return
	}
	x := &n.drifts
	var hosts []string
	for _, h := range d.Hosts {
		if a, ok := x.hosts[h.Host]; ok {
			hosts = append(hosts, fmt.Sprintf("%s (%.0f %%)", a, 100*h.Share))
		}
	}
	if x.due.IsZero() {
		x.due = now.Add(max(2*n.o.Learner.Wait, n.o.Learner.Wait+time.Minute))
		if n.o.Learner.Wait > time.Hour {
			x.due = now.Add(n.o.Learner.Wait + time.Hour)
		}
	}
	words := d.Words()
	if len(hosts) > 0 {
		words += "; most of it by " + strings.Join(hosts, ", ")
	}
	x.last = &api.Drift{At: now, Kind: d.Kind, Words: words, Features: d.Features, Hosts: hosts, Retrain: x.due}
	n.log.Warn("traffic has drifted", telemetry.KeyReason, words, telemetry.KeyUntil, x.due)
}

// driftDue asks for the new model when its time has come.
func (n *Node) driftDue(now time.Time) {
	n.mu.Lock()
	x := &n.drifts
	why := ""
	if !x.due.IsZero() && !now.Before(x.due) {
		x.due = time.Time{}
		why = cmp.Or(x.last.Words, "traffic drifted")
	}
	n.mu.Unlock()
	if why != "" {
		n.learn.want(why)
	}
}
