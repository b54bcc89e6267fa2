package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Flow is one archived flow.
type Flow struct {
	Archived time.Time // when it came here; AppendFlows sets it
	Flow     event.Flow
	Vector   []byte // feature vector, in the encoding of whoever made it
}

// flowRow is a Flow as it lies in the archive: CBOR, an array without keys, a
// quarter of JSON's size. Fields are only ever added at the end.
type flowRow struct {
	_         struct{} `cbor:",toarray"`
	Proto     string
	Src       string
	SrcPort   uint16
	Dst       string
	DstPort   uint16
	Direction string
	Start     int64
	Duration  float64
	PktsOut   uint32
	PktsIn    uint32
	BytesOut  uint64
	BytesIn   uint64
	Validated bool
	End       string
	P         float64
	Dropped   uint32
	Vector    []byte
	TLS       *event.TLS
}

// Rows of the first form end with the vector.
const (
	rowHead  = 0x92 // the head of a CBOR array of as many items as a row has now
	rowHead1 = 0x91
	cborNull = 0xf6
)

func rowOf(f Flow) flowRow {
	e := f.Flow
	return flowRow{
		Proto: e.Proto, Src: e.Src, SrcPort: e.SrcPort, Dst: e.Dst, DstPort: e.DstPort, Direction: e.Direction,
		Start: e.Start, Duration: e.Duration, PktsOut: e.PktsOut, PktsIn: e.PktsIn, BytesOut: e.BytesOut,
		BytesIn: e.BytesIn, Validated: e.Validated, End: e.End, P: e.P, Dropped: e.Dropped, Vector: f.Vector, TLS: e.TLS,
	}
}

func (r flowRow) flow(archived time.Time) Flow {
	return Flow{Archived: archived, Vector: r.Vector, Flow: event.Flow{
		Proto: r.Proto, Src: r.Src, SrcPort: r.SrcPort, Dst: r.Dst, DstPort: r.DstPort, Direction: r.Direction,
		Start: r.Start, Duration: r.Duration, PktsOut: r.PktsOut, PktsIn: r.PktsIn, BytesOut: r.BytesOut,
		BytesIn: r.BytesIn, Validated: r.Validated, End: r.End, P: r.P, Dropped: r.Dropped, TLS: r.TLS,
	}}
}

const (
	groupMax  = 48 << 10 // bytes of one group: below the size at which values leave the tables
	maxVector = 16 << 10
)

// AppendFlows archives flows. Hand over many at once, every second or so: they
// are kept in groups, and one call costs one sync.
func (s *Store) AppendFlows(flows []Flow) error {
	at := s.opt.Now().UnixNano()
	var reqs []*request
	group := &flowGroup{}
	for _, f := range flows {
		if len(f.Vector) > maxVector {
			return fmt.Errorf("store: flow vector of %d bytes %w: expected at most %d", len(f.Vector), ErrTooLarge, maxVector)
		}
		row, err := cbor.Marshal(rowOf(f))
		if err != nil {
			return fmt.Errorf("store: flow: not CBOR: %v", err)
		}
		if len(row) > groupMax {
			return fmt.Errorf("store: flow of %d bytes %w: expected at most %d", len(row), ErrTooLarge, groupMax)
		}
		if !group.fits(row) {
			reqs = append(reqs, group.request(at))
			group = &flowGroup{}
		}
		group.add(row)
	}
	if group.n > 0 {
		reqs = append(reqs, group.request(at))
	}
	for _, r := range reqs {
		if err := s.submit(r); err != nil {
			return err
		}
	}
	return nil
}

// flowGroup is rows laid end to end: CBOR items delimit themselves.
type flowGroup struct {
	n   int
	buf []byte
}

func (g *flowGroup) fits(row []byte) bool {
	return g.n < math.MaxUint16 && len(g.buf)+len(row) <= groupMax
}

func (g *flowGroup) add(row []byte) { g.n, g.buf = g.n+1, append(g.buf, row...) }

func (g *flowGroup) request(at int64) *request {
	n, bytes := g.n, int64(len(g.buf))
	return &request{
		class:  classFlows,
		ops:    []op{{flowKey(at, newGeneration(), n), g.buf}},
		counts: func(c *counts) { c.flows += n; c.flowBytes += bytes },
	}
}

// Flows iterates over the archive in order of archiving, from since on (zero:
// the beginning) until before until (zero: the end). After an error the
// iteration ends.
func (s *Store) Flows(since, until time.Time) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		err := s.db.View(func(txn *badger.Txn) error { return scanFlows(txn, since, until, yield) })
		if err != nil && !errors.Is(err, errStop) {
			yield(Flow{}, fmt.Errorf("flows: %w", own(err)))
		}
	}
}

func scanFlows(txn *badger.Txn, since, until time.Time, yield func(Flow, error) bool) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{pFlow}, PrefetchValues: true, PrefetchSize: 8})
	defer it.Close()
	from, end := []byte{pFlow}, int64(math.MaxInt64)
	if !since.IsZero() {
		from = binary.BigEndian.AppendUint64(from, uint64(max(since.UnixNano(), 0)))
	}
	if !until.IsZero() {
		end = until.UnixNano()
	}
	for it.Seek(from); it.Valid(); it.Next() {
		at := flowTime(it.Item().Key())
		if at >= end {
			return nil
		}
		err := it.Item().Value(func(v []byte) error { return eachRow(v, time.Unix(0, at).UTC(), yield) })
		if err != nil {
			return err
		}
	}
	return nil
}

func eachRow(v []byte, at time.Time, yield func(Flow, error) bool) error {
	for len(v) > 0 {
		r, rest, err := decodeRow(v)
		if err != nil {
			return fmt.Errorf("%w: an archived flow is unreadable", ErrDamaged)
		}
		if !yield(r.flow(at), nil) {
			return errStop
		}
		v = rest
	}
	return nil
}

// decodeRow reads the first row of v, of either form.
func decodeRow(v []byte) (r flowRow, rest []byte, err error) {
	if v[0] != rowHead1 {
		rest, err = cbor.UnmarshalFirst(v, &r)
		return r, rest, err
	}
	var old cbor.RawMessage
	if rest, err = cbor.UnmarshalFirst(v, &old); err != nil {
		return r, nil, err
	}
	now := append([]byte{rowHead}, old[1:]...)
	return r, rest, cbor.Unmarshal(append(now, cborNull), &r)
}
