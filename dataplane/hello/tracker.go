package hello

import (
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// What packet paths show of a flow, at most: the first so many payload packets,
// if the initiator sent them, and of each so many bytes.
const (
	Samples    = 3
	SampleSize = 2048
)

// Bounds of a Tracker.
const (
	maxFlows   = 1 << 15 // whose hello is remembered
	maxPending = 512     // whose hello is not whole yet
)

// slack is how far a flow's start, as told later, may be off.
const slack = int64(time.Second)

// Sample is a payload packet of a flow's initiator that may hold a hello, or a
// part of it.
type Sample struct {
	Key     flow.Key
	At      int64  // time of the packet
	First   bool   // it is the first payload packet of the flow
	Seq     uint32 // of TCP
	Payload []byte // at most SampleSize bytes; not kept
}

// Tracker reads the hellos of many flows. Its memory is bounded: the flow that
// was seen first goes first. It is for one goroutine.
type Tracker struct {
	flows   map[flow.Key]*entry
	order   [maxFlows]slot
	next    int
	pending []*entry // a ring
	nextOf  int
}

type slot struct {
	key flow.Key
	e   *entry
}

type entry struct {
	at int64
	a  *Assembly   // nil when nothing more is to come
	h  *flow.Hello // nil when it is not known, or not yet
}

// NewTracker returns one that knows no flow.
func NewTracker() *Tracker {
	return &Tracker{flows: map[flow.Key]*entry{}, pending: make([]*entry, maxPending)}
}

// See takes a sample.
func (t *Tracker) See(s *Sample) {
	e := t.flows[s.Key]
	if s.First {
		e = t.begin(s)
	}
	if e == nil || e.a == nil {
		return
	}
	if s.Key.Proto == flow.UDP {
		e.a.Datagram(s.Payload)
	} else {
		e.a.Segment(s.Seq, s.Payload)
	}
	h, err := e.a.Hello()
	if h != nil || err != nil {
		e.h, e.a = h, nil
	}
}

func (t *Tracker) begin(s *Sample) *entry {
	if old := t.order[t.next]; old.e != nil && t.flows[old.key] == old.e {
		delete(t.flows, old.key)
	}
	e := &entry{at: s.At, a: &Assembly{}}
	t.flows[s.Key] = e
	t.order[t.next] = slot{s.Key, e}
	t.next = (t.next + 1) % maxFlows
	if old := t.pending[t.nextOf]; old != nil {
		old.a = nil
	}
	t.pending[t.nextOf] = e
	t.nextOf = (t.nextOf + 1) % maxPending
	return e
}

// Fill gives a record the hello that its flow began with, if it is known. last
// says that this is the flow's last report.
func (t *Tracker) Fill(r *flow.Record, last bool) {
	e := t.flows[r.Key]
	if e == nil || e.at < r.Start-slack || e.at > r.Last+slack {
		return
	}
	r.Hello = e.h
	if last {
		delete(t.flows, r.Key)
	}
}
