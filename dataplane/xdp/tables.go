package xdp

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// table is the kind of map that holds a rule.
type table uint8

const (
	tableFlow table = iota
	tableAddr
	tableService
	tablePair
	tableToward
	tableBlockPrefix
	tableObservePrefix
	tables
)

// place is where a target's rule of an action belongs.
func place(t dataplane.Target, a dataplane.Action) table {
	switch t.Form() {
	case dataplane.FormFlow:
		return tableFlow
	case dataplane.FormService:
		return tableService
	case dataplane.FormPair:
		return tablePair
	case dataplane.FormToward:
		return tableToward
	case dataplane.FormAddress:
		return tableAddr
	}
	if a == dataplane.Block {
		return tableBlockPrefix
	}
	return tableObservePrefix
}

// canonical is the one form of a target under which it is kept.
func canonical(t dataplane.Target) dataplane.Target {
	if t.IsFlow() {
		k := t.Flow
		k, _ = flow.NewKey(netip.AddrPortFrom(k.A, k.APort), netip.AddrPortFrom(k.B, k.BPort), k.Proto)
		return dataplane.Target{Flow: k}
	}
	t.Flow = flow.Key{}
	return t
}

// entry is what userspace remembers of a rule that is in the kernel.
type entry struct {
	action      dataplane.Action
	expires     uint64 // us of boot time
	reason      uint32
	cover       uint64 // as written, see bpf/types.h
	coverReason uint32
}

func word(a dataplane.Action, us uint64) uint64 { return uint64(a) | us<<8 }

func (p *Plane) mapOf(in table) *ebpf.Map {
	switch in {
	case tableFlow:
		return p.objs.Verdicts
	case tableAddr, tableService, tableToward:
		return p.objs.Addrs
	case tablePair:
		return p.objs.Pairs
	}
	return p.objs.Prefixes
}

// put writes one live rule; hits of a predecessor with the same action stay. For
// a target that is new, it calls the kernel once. The caller holds the lock.
func (p *Plane) put(t dataplane.Target, r *dataplane.Rule, old entry, had bool) error {
	in := place(t, r.Action)
	e := entry{action: r.Action, expires: p.clock.bootMicros(r.Expires), reason: r.Reason}
	if in == tableBlockPrefix || in == tableObservePrefix {
		e.cover, e.coverReason = p.coverOf(t.Prefix, in)
	}
	v := kernelRule{Word: word(e.action, e.expires), Reason: e.reason, Rate: r.Rate, Cover: e.cover, CoverReason: e.coverReason}
	if in == tablePair {
		_, v.Rate = pairKey(t)
	}
	m, k := p.mapOf(in), p.buf.key(in, t)
	if had && old.action == r.Action {
		if err := m.Lookup(k, unsafe.Pointer(&p.buf.value)); err == nil {
			was := &p.buf.value
			v.Packets, v.Bytes, v.Tat = was.Packets, was.Bytes, was.Tat
		}
	}
	if err := p.enable(in); err != nil {
		return err
	}
	fresh := !had || place(t, old.action) != in
	p.marks.set(in, t, fresh)
	p.buf.value = v
	if err := m.Put(k, unsafe.Pointer(&p.buf.value)); err != nil {
		if fresh {
			p.marks.clear(in, t)
		}
		return errors.Join(fmt.Errorf("rule for %s: %w", t, full(err)), p.disable(in))
	}
	if had && place(t, old.action) != in {
		if err := p.drop(t, old); err != nil {
			return err
		}
		had = false
	}
	if !had {
		p.count[in]++
	}
	p.rules[t] = e
	return nil
}

// known is what this process knows of a target. What it knows of a pair with its
// ends changed about it brings under the form t.
func (p *Plane) known(t dataplane.Target) (entry, bool) {
	e, ok := p.rules[t]
	if ok || !t.Host.IsValid() {
		return e, ok
	}
	other := dataplane.Pair(t.Prefix.Addr(), t.Host)
	if e, ok = p.rules[other]; ok {
		delete(p.rules, other)
		p.rules[t] = e
	}
	return e, ok
}

// drop removes one rule, if it is there.
func (p *Plane) drop(t dataplane.Target, e entry) error {
	in := place(t, e.action)
	if err := p.mapOf(in).Delete(p.buf.key(in, t)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove rule for %s: %w", t, err)
	}
	delete(p.rules, t)
	p.count[in]--
	p.marks.clear(in, t)
	return p.disable(in)
}

// full turns what the kernel says of a full map into ErrFull.
func full(err error) error {
	if errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: remove rules or use wider prefixes", dataplane.ErrFull)
	}
	return err
}

// enable makes the programs look into a table, before something is put there.
func (p *Plane) enable(in table) error { return p.setTable(in, 1) }

// disable lets them skip it again when it is empty.
func (p *Plane) disable(in table) error {
	if p.count[in] > 0 {
		return nil
	}
	return p.setTable(in, 0)
}

func (p *Plane) setTable(in table, v uint32) error {
	field := switchOf(&p.cfg, in)
	if *field == v {
		return nil
	}
	*field = v
	return p.writeConfig()
}

// switchOf is the setting that makes the programs look into a table.
func switchOf(c *kernelConfig, in table) *uint32 {
	return [tables]*uint32{
		&c.FlowRules, &c.AddrRules, &c.ServiceRules, &c.PairRules, &c.TowardRules, &c.BlockPrefixes, &c.ObservePrefixes,
	}[in]
}

func (p *Plane) writeConfig() error {
	if err := p.objs.Settings.Put(unsafe.Pointer(&p.buf.first), unsafe.Pointer(&p.cfg)); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// coverOf is the word and reason of the wider prefix of the same table that
// lives longest: the kernel finds the narrowest prefix only, and one that
// expired must not hide a wider one that is alive.
func (p *Plane) coverOf(pfx netip.Prefix, in table) (cover uint64, reason uint32) {
	var best uint64
	for bits := pfx.Bits() - 1; bits >= 8; bits-- {
		wide, err := pfx.Addr().Prefix(bits)
		if err != nil {
			return 0, 0
		}
		e, ok := p.rules[dataplane.Target{Prefix: wide}]
		if ok && place(dataplane.Target{Prefix: wide}, e.action) == in && e.expires > best {
			best, cover, reason = e.expires, word(e.action, e.expires), e.reason
		}
	}
	return cover, reason
}

// refreshCovers rewrites the covers of all prefixes that lie inside changed ones.
func (p *Plane) refreshCovers(changed []netip.Prefix) error {
	if len(changed) == 0 || p.count[tableBlockPrefix]+p.count[tableObservePrefix] < 1 {
		return nil
	}
	for t, e := range p.rules {
		in := place(t, e.action)
		if in != tableBlockPrefix && in != tableObservePrefix || !inside(t.Prefix, changed) {
			continue
		}
		cover, reason := p.coverOf(t.Prefix, in)
		if cover == e.cover && reason == e.coverReason {
			continue
		}
		k, v := p.buf.key(in, t), &p.buf.value
		if err := p.objs.Prefixes.Lookup(k, unsafe.Pointer(v)); err != nil {
			return fmt.Errorf("read rule for %s: %w", t, err)
		}
		v.Cover, v.CoverReason = cover, reason
		if err := p.objs.Prefixes.Put(k, unsafe.Pointer(v)); err != nil {
			return fmt.Errorf("rewrite rule for %s: %w", t, full(err))
		}
		e.cover, e.coverReason = cover, reason
		p.rules[t] = e
	}
	return nil
}

// inside says whether one of wide is wider than p and contains it. Of a long
// list it is cheaper to say yes and let the caller look.
func inside(p netip.Prefix, wide []netip.Prefix) bool {
	if len(wide) > 16 {
		return true
	}
	for _, w := range wide {
		if w.Bits() < p.Bits() && w.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// found is a rule as it stands in the kernel.
type found struct {
	target dataplane.Target
	value  kernelRule
}

// acts says whether packets are led to a rule: one that is in its table, but
// that no mark names, is not enforced.
func (p *Plane) acts(f *found) bool {
	return p.marks.shows(place(f.target, dataplane.Action(f.value.Word&0xff)), f.target)
}

// inKernel yields all rules of all tables, also those that expired. An error
// ends the sequence.
func (p *Plane) inKernel() iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for k, v := range dump[kernelFlowKey, kernelRule](p.objs.Verdicts) {
			if !yield(found{dataplane.Target{Flow: fromFlowKey(&k)}, v.value}, v.err) {
				return
			}
		}
		for k, v := range dump[kernelRuleKey, kernelRule](p.objs.Addrs) {
			a := fromKernel(k.Addr)
			t := dataplane.Target{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: k.Port, Proto: k.Proto, Toward: k.Toward != 0}
			if !yield(found{t, v.value}, v.err) {
				return
			}
		}
		for k, v := range dump[kernelPairKey, kernelRule](p.objs.Pairs) {
			t := fromPair(&k, v.value.Rate)
			v.value.Rate = 0
			if !yield(found{t, v.value}, v.err) {
				return
			}
		}
		var k kernelPrefixKey
		var v kernelRule
		it := p.objs.Prefixes.Iterate()
		for it.Next(&k, &v) {
			if !yield(found{dataplane.Target{Prefix: fromPrefix(k.Family, k.Bits-32, k.Addr)}, v}, nil) {
				return
			}
		}
		if err := it.Err(); err != nil {
			yield(found{}, fmt.Errorf("read prefixes: %w", err))
		}
	}
}

type dumped[V any] struct {
	value V
	err   error
}

const dumpBatch = 4096

// dump reads a hash map in batches. What is added or removed meanwhile may be
// seen or not, and a key may come twice.
func dump[K, V any](m *ebpf.Map) iter.Seq2[K, dumped[V]] {
	return func(yield func(K, dumped[V]) bool) {
		var cursor ebpf.MapBatchCursor
		size := min(dumpBatch, int(m.MaxEntries())+1)
		keys, values := make([]K, size), make([]V, size)
		for {
			n, err := m.BatchLookup(&cursor, keys, values, nil)
			if errors.Is(err, syscall.ENOSPC) && len(keys) < int(m.MaxEntries()) {
				// One bucket held more than fits; the cursor has not moved.
				keys, values = make([]K, 2*len(keys)), make([]V, 2*len(values))
				continue
			}
			done := errors.Is(err, ebpf.ErrKeyNotExist)
			if err != nil && !done {
				var k K
				yield(k, dumped[V]{err: fmt.Errorf("read map: %w", err)})
				return
			}
			for i := range n {
				if !yield(keys[i], dumped[V]{value: values[i]}) {
					return
				}
			}
			if done {
				return
			}
		}
	}
}

// adopt fills userspace's memory from the kernel, after a takeover.
func (p *Plane) adopt() error {
	for f, err := range p.inKernel() {
		if err != nil {
			return err
		}
		e := entry{
			action: dataplane.Action(f.value.Word & 0xff), expires: f.value.Word >> 8, reason: f.value.Reason,
			cover: f.value.Cover, coverReason: f.value.CoverReason,
		}
		in := place(f.target, e.action)
		_, known := p.rules[f.target]
		if !known {
			p.count[in]++
		}
		p.marks.set(in, f.target, !known)
		p.rules[f.target] = e
	}
	p.marks.tidy()
	for in := range tables {
		if p.count[in] > 0 {
			if err := p.enable(in); err != nil {
				return err
			}
		}
	}
	return nil
}

// expire removes rules that no longer act. The kernel does not need it: this
// keeps the tables small.
func (p *Plane) expire(now time.Time) error {
	limit := p.clock.bootMicros(now)
	var changed []netip.Prefix
	for t, e := range p.rules {
		if e.expires > limit {
			continue
		}
		if err := p.drop(t, e); err != nil {
			return err
		}
		if !t.IsFlow() && !t.Prefix.IsSingleIP() {
			changed = append(changed, t.Prefix)
		}
	}
	return p.refreshCovers(changed)
}
