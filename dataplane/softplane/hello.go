package softplane

import (
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
)

var _ dataplane.Hellos = (*Plane)(nil)

// WatchHellos implements dataplane.Hellos.
func (p *Plane) WatchHellos(on bool) error {
	return p.locked(func() error {
		switch {
		case !on:
			p.hellos = nil
		case p.hellos == nil:
			p.hellos = hello.NewTracker()
		}
		return nil
	})
}

// shows says whether a payload packet of the initiator may hold what a TLS client
// says first, and which payload packet of its flow it is, from 1; else 0. r does
// not count it yet.
func shows(q *parsed, r *flow.Record) uint8 {
	n := r.NFirst + 1
	switch {
	case n > hello.Samples:
	case q.Proto == flow.UDP && q.payload >= hello.MinDatagram:
		return n
	case q.Proto == flow.TCP && r.Hint == flow.HintTLS && q.flags&flow.RST == 0:
		return n
	}
	return 0
}

// see reads what a packet may hold of a hello.
func (p *Plane) see(q *parsed, t int64) {
	body := q.body[:min(len(q.body), max(q.payload, 0), hello.SampleSize)]
	if q.Proto == flow.UDP && !hello.IsInitial(body) {
		return
	}
	p.hellos.See(&hello.Sample{Key: q.Key, At: t, First: q.show == 1, Seq: q.seq, Payload: body})
}
