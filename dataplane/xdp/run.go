package xdp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Run implements [dataplane.Plane]. Idle flows end, and expired rules leave
// the tables, only while it runs. It returns [dataplane.ErrClosed] when the
// plane is closed. Only one Run at a time.
func (p *Plane) Run(ctx context.Context, handle func(*dataplane.Event)) error {
	if !p.running.CompareAndSwap(false, true) {
		return errors.New("run: the plane runs already")
	}
	defer p.running.Store(false)
	stop := context.AfterFunc(ctx, p.wake)
	defer stop()
	defer p.watchLinks()()

	var rec ringbuf.Record
	var ev dataplane.Event
	next := time.Now().Add(p.o.SweepEvery)
	for ctx.Err() == nil {
		p.reader.SetDeadline(next)
		err := p.reader.ReadInto(&rec)
		switch {
		case errors.Is(err, ringbuf.ErrClosed):
			return dataplane.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
		case err != nil:
			return fmt.Errorf("run: read event: %w", err)
		default:
			p.deliver(rec.RawSample, &ev, handle)
		}
		if p.linksChanged.Swap(false) {
			if err := p.tend(); err != nil {
				return err
			}
		}
		if now := time.Now(); !now.Before(next) {
			if err := p.sweep(ctx, handle); err != nil {
				return err
			}
			next = time.Now().Add(p.o.SweepEvery)
		}
	}
	return nil
}

// wake ends a wait for events.
func (p *Plane) wake() { _ = p.reader.Flush() }

func (p *Plane) deliver(raw []byte, ev *dataplane.Event, handle func(*dataplane.Event)) {
	if isHello(raw) {
		if err := p.hear(raw); err != nil {
			p.log.Warn("an event of the kernel is unreadable", "error", err)
		}
		return
	}
	decode := decodeEvent
	switch {
	case isAnswer(raw):
		decode = decodeAnswer
	case isVerdict(raw):
		decode = decodeVerdict
	}
	if err := decode(raw, &p.clock, ev); err != nil {
		p.log.Warn("an event of the kernel is unreadable", "error", err)
		return
	}
	p.greet(ev)
	handle(ev)
}

// poll delivers what is in the ring now.
func (p *Plane) poll(handle func(*dataplane.Event)) error {
	p.reader.SetDeadline(time.Unix(1, 0))
	var rec ringbuf.Record
	var ev dataplane.Event
	for {
		err := p.reader.ReadInto(&rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		p.deliver(rec.RawSample, &ev, handle)
	}
}

// sweep ends idle flows and removes expired rules. handle is called without
// the lock, so that it may apply rules.
func (p *Plane) sweep(ctx context.Context, handle func(*dataplane.Event)) error {
	p.clock.adjust()
	if err := p.tend(); err != nil {
		return err
	}
	idle, err := p.idleFlows()
	if err != nil {
		return err
	}
	var ev dataplane.Event
	for i := range idle {
		if ctx.Err() != nil {
			return nil
		}
		ok, err := p.endIdle(&idle[i], &ev)
		if err != nil {
			return err
		}
		if ok {
			handle(&ev)
		}
	}
	return p.finishSweep(len(idle) > 0)
}

// idleFlows are the flows that were silent too long.
func (p *Plane) idleFlows() ([]flowRef, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, dataplane.ErrClosed
	}
	return p.store.idle(bootNow(), int64(p.o.Idle.least()), p.quiet)
}

// endIdle takes one flow out of the table and makes its last event, unless a
// packet has come since the flow was found idle.
func (p *Plane) endIdle(ref *flowRef, ev *dataplane.Event) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, dataplane.ErrClosed
	}
	f, ok, err := p.store.end(ref, bootNow(), p.quiet)
	if err != nil || !ok {
		return false, err
	}
	p.cfg.Swept++
	*ev = dataplane.Event{Kind: dataplane.EventEnd, Mode: dataplane.Mode(p.cfg.Mode)}
	fillRecord(&ref.key, &f, &p.clock, &ev.Record)
	ev.Record.End = flow.EndIdle
	if ev.Record.OnlyResets() {
		ev.Record.End = flow.EndRST
	}
	p.greet(ev)
	return true, nil
}

func (p *Plane) finishSweep(swept bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	if err := p.expire(time.Now()); err != nil {
		return fmt.Errorf("sweep rules: %w", err)
	}
	if err := p.expireHolds(); err != nil {
		return fmt.Errorf("sweep held flows: %w", err)
	}
	if err := p.rotate(); err != nil {
		return fmt.Errorf("draw new keys: %w", err)
	}
	if swept {
		return p.writeConfig()
	}
	return nil
}
