package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// probation is what a site has to have seen before its learner's word alone has an
// effect: enough time, enough of its hours, and enough variety. Twenty seconds of even
// traffic teach a model that everything else is unusual. It is under the node's lock.
type probation struct {
	asked time.Duration // 0: none
	first time.Time     // the first ordinary flow
	hours int           // clock hours with ordinary flows
	last  int64         // the newest of them, hours since 1970
	over  bool
}

const (
	keyProbation = "node/probation"
	// hoursShare is the part of its hours that have to have traffic: a working day of
	// a day.
	hoursShare = 1.0 / 3
	// variety is how many ordinary relations of an inside host with somebody there
	// have to be.
	variety = 8
)

// saw counts an ordinary flow. The result says that there is something to store.
func (p *probation) saw(now time.Time) bool {
	if p.asked <= 0 || p.over {
		return false
	}
	if p.first.IsZero() || now.Before(p.first) {
		p.first = now
	}
	hour := now.Unix() / 3600
	if hour == p.last {
		return false
	}
	p.last = hour
	p.hours++
	return true
}

// needed is how many hours with traffic are asked for.
func (p *probation) needed() int { return int(p.asked.Hours() * hoursShare) }

// missing says what is missing, nil when nothing is; relations are the ordinary ones.
func (p *probation) missing(now time.Time, relations int) error {
	if p.asked <= 0 || p.over {
		return nil
	}
	switch left := p.asked - now.Sub(p.first); {
	case p.first.IsZero():
		return fmt.Errorf("learner.probation: nothing ordinary was seen yet, of %s", p.asked)
	case left > 0:
		return fmt.Errorf("learner.probation: another %s of %s", left.Round(time.Second), p.asked)
	case p.hours < p.needed():
		return fmt.Errorf("learner.probation: %d of %d hours with ordinary traffic", p.hours, p.needed())
	case relations < variety:
		return fmt.Errorf("learner.probation: %d of %d ordinary relations of a host with somebody", relations, variety)
	}
	p.over = true
	return nil
}

// onProbation says why the learner's word alone has no effect yet. The caller holds
// n.mu.
func (n *Node) onProbation(now time.Time) error {
	before := n.probation.over
	err := n.probation.missing(now, n.machine.Ordinary(now).Relations)
	if n.probation.over != before {
		n.saveProbation()
		n.log.Info("the learner's probation is over: what it alone finds has an effect from now on")
	}
	if err != nil {
		return fmt.Errorf("the learner is on probation, and tells only: %v", err)
	}
	return nil
}

// The account is stored as when it began in seconds, the hours, the newest hour and
// whether it is over.
func (n *Node) saveProbation() {
	p := &n.probation
	over := uint64(0)
	if p.over {
		over = 1
	}
	var b []byte
	for _, x := range []uint64{uint64(p.first.Unix()), uint64(p.hours), uint64(p.last), over} {
		b = binary.AppendUvarint(b, x)
	}
	n.outbox.put(job{save: &kv{keyProbation, b}})
}

func (n *Node) loadProbation() error {
	b, err := n.o.Store.Load(keyProbation)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.probation.decode(b); err != nil {
		n.log.Warn("the stored probation cannot be used: it begins anew", telemetry.KeyErr, err)
	}
	return nil
}

func (p *probation) decode(b []byte) error {
	d := decoder{b: b}
	first, hours, last, over := d.uvarint(1<<40), d.uvarint(1<<30), d.uvarint(1<<40), d.uvarint(1)
	if d.err != nil || len(d.b) > 0 {
		return errors.New("probation: cut short or out of range")
	}
	p.first, p.hours, p.last, p.over = time.Unix(int64(first), 0).UTC(), int(hours), int64(last), over == 1
	return nil
}

// alone is what the learner's word alone may do, and did; nil where there is none. The
// caller holds n.mu.
func (n *Node) alone(now time.Time) *api.Alone {
	if !n.o.Learner.Enabled {
		return nil
	}
	a := n.machine.Ordinary(now)
	v := api.Alone{
		Relations: a.Relations, Cut: a.Cut, Flows: a.Flows, Stopped: a.Stopped, Held: a.Held,
		Changing: a.Changing, Since: a.Since, Until: a.Until,
	}
	if err := n.onProbation(now); err != nil {
		v.Probation = err.Error()
	}
	v.Words = fmt.Sprintf("within an hour %d of %d ordinary relations and %d of their %d flows were held up on the learner's word alone; it was held back %d times",
		v.Cut, v.Relations, v.Stopped, v.Flows, v.Held)
	switch {
	case v.Probation != "":
		v.Words = v.Probation
	case v.Changing:
		v.Words = fmt.Sprintf("since %s this site is changing: what is ordinary here is not held up on the learner's word alone until %s at least; %s",
			v.Since.Local().Format(time.TimeOnly), v.Until.Local().Format(time.TimeOnly), v.Words)
	}
	return &v
}
