package history

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// Options of reading.
type Options struct {
	Inside     []netip.Prefix // protected prefixes; empty: what a log says, or private ones
	Zone       *time.Location // of times that name none; default UTC
	LinkHeader int            // bytes below IP that Argus and Suricata counted for each packet; 0 unknown
	Settle     time.Duration  // how long until a host is familiar; default ten minutes
	Seed       uint64
	Truth      Truth // what is known of the flows; the zero value knows what the logs say
	Progress   func(file string, done, total int64)
}

// Report is one report of a flow, as far as it got. It is valid until the call
// returns.
type Report struct {
	Record *flow.Record
	V      *feature.Vector
	Final  bool
	// Settled says that the context knew who is familiar.
	Settled bool
	Class   flowlog.Class
	Family  string
	Weight  float32 // of an attack, 0..1: how sure the label is
	// Contrary says that the log itself labels the flow otherwise than the truth.
	Contrary bool
}

// File is what became of one file.
type File struct {
	Path    string          `json:"file"`
	Format  string          `json:"format"`
	Packets int64           `json:"packets,omitempty"`
	Flows   int             `json:"flows"`
	From    time.Time       `json:"from,omitzero"`
	To      time.Time       `json:"to,omitzero"`
	Log     *flowlog.Report `json:"log,omitempty"`
	Cut     string          `json:"cut,omitempty"` // why it was not read to its end
}

// Read shows every report of a file to f, in about the order of time. A file that
// breaks off gives what stands ahead of the fault; an error is of a file that
// gives nothing.
func Read(ctx context.Context, path string, o Options, f func(*Report)) (*File, error) {
	c, err := feature.NewContext(feature.ContextOptions{Settle: o.Settle, Seed: o.Seed + 1})
	if err != nil {
		return nil, err
	}
	l, err := flowlog.Open(path, flowlog.Options{Inside: o.Inside, Zone: o.Zone, LinkHeader: o.LinkHeader})
	if err == nil {
		defer func() { _ = l.Close() }()
		return readLog(ctx, l, path, &o, c, f)
	}
	if !errors.Is(err, flowlog.ErrForeign) {
		return nil, err
	}
	p, bad := intake.OpenCapture(path)
	if bad != nil {
		return nil, fmt.Errorf("%w; as a capture: %v", err, bad)
	}
	defer func() { _ = p.Close() }()
	return readCapture(ctx, p, path, &o, c, f)
}

func (x *File) span(r *flow.Record) {
	if r.Lacks&flow.LackClock != 0 {
		return
	}
	if t := time.Unix(0, r.Start).UTC(); x.From.IsZero() || t.Before(x.From) {
		x.From = t
	}
	if t := time.Unix(0, r.Last).UTC(); t.After(x.To) {
		x.To = t
	}
}

func readLog(ctx context.Context, l *flowlog.Reader, path string, o *Options, c *feature.Context, f func(*Report)) (*File, error) {
	x := &File{Path: path, Format: string(l.Format())}
	var v feature.Vector
	for i := 0; ; i++ {
		if i&255 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			o.progress(path, l.Offset(), l.Size())
		}
		fl, err := l.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		rec := &fl.Record
		c.Update(rec, true)
		c.Vector(&v, rec)
		x.Flows++
		x.span(rec)
		r := Report{Record: rec, V: &v, Final: true, Settled: c.Settled()}
		o.Truth.ofLog(path, fl, &r)
		f(&r)
	}
	x.Log = l.Report()
	x.Cut = x.Log.Cut
	o.progress(path, l.Size(), l.Size())
	return x, nil
}

func (o *Options) progress(path string, done, total int64) {
	if o.Progress != nil {
		o.Progress(path, done, total)
	}
}

func readCapture(ctx context.Context, p *intake.Capture, path string, o *Options, c *feature.Context, f func(*Report)) (*File, error) {
	x := &File{Path: path, Format: p.Format()}
	var now time.Time
	plane, err := softplane.Open(softplane.Options{Inside: o.Inside, Now: func() time.Time { return now }})
	if err != nil {
		return nil, err
	}
	if err := plane.WatchHellos(true); err != nil {
		return nil, err
	}
	marks := o.Truth.capture(path)
	var v feature.Vector
	take := func(ev *dataplane.Event) {
		if ev.Kind != dataplane.EventMilestone && ev.Kind != dataplane.EventEnd {
			return
		}
		rec := &ev.Record
		final := ev.Kind == dataplane.EventEnd
		c.Update(rec, final)
		c.Vector(&v, rec)
		if final {
			x.Flows++
		}
		x.span(rec)
		r := Report{Record: rec, V: &v, Final: final, Settled: c.Settled()}
		marks.of(&r)
		f(&r)
	}
	for i := int64(0); ; i++ {
		if i&1023 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			o.progress(path, p.Offset(), p.Size())
		}
		k, err := p.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				x.Cut = err.Error()
			}
			break
		}
		x.Packets++
		if k.At.After(now) {
			now = k.At
		}
		marks.packet(i, k)
		plane.Captured(k.Link, k.Data, k.OrigLen, k.At)
		plane.Drain(take)
	}
	plane.Flush()
	plane.Drain(take)
	o.progress(path, p.Size(), p.Size())
	return x, nil
}

// owners hashes whose traffic a record is: the inside host, the other end, the
// service.
func owners(r *flow.Record) (host, peer, service uint64) {
	far, _, ok := r.Outside()
	if !ok {
		far = r.Responder()
	}
	near := r.Initiator().Addr()
	if !r.InitInside && r.RespInside {
		near = r.Responder().Addr()
	}
	return hash(near), hash(far.Addr()), uint64(r.Key.Proto)<<16 | uint64(r.Responder().Port())
}

// hash is that of the node for addresses, so that shares and verdicts meet.
func hash(a netip.Addr) uint64 {
	h := fnv.New64a()
	b := a.As16()
	_, _ = h.Write(b[:])
	return h.Sum64()
}
