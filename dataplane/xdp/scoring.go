package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

var _ dataplane.Scorer = (*Plane)(nil)

// scorerSlots is SLOTS of bpf/score.h: behind them are the programs that act.
const scorerSlots = 2

// scoring is userspace's side of bpf/score.h.
type scoring struct {
	mu   sync.Mutex // one SetScoring at a time; taken ahead of the plane's
	last lastScoring

	refuse func(*ebpf.ProgramSpec) // tests: what the verifier gets to see
}

// lastScoring is what this process set last, under the plane's lock.
type lastScoring struct {
	compile, load, swap time.Duration
	length              int
	swaps               uint64
}

// SetScoring implements [dataplane.Scorer]. The scorers become a program for each
// hook, which the kernel checks before any packet meets it.
func (p *Plane) SetScoring(s dataplane.Scoring) error {
	if err := s.Validate(); err != nil {
		return err
	}
	s = s.Filled()
	p.scoring.mu.Lock()
	defer p.scoring.mu.Unlock()
	if !s.Judges() {
		return p.endScoring()
	}
	var t lastScoring
	goes, err := makeScoring(&s)
	if err != nil {
		return fmt.Errorf("set scoring: %w", err)
	}
	progs, err := p.compileScoring(&s, &t)
	if err != nil {
		return fmt.Errorf("set scoring: %w", err)
	}
	defer progs.close() // the arrays hold them
	start := time.Now()
	if err := p.swapScoring(progs, &goes); err != nil {
		return fmt.Errorf("set scoring: %w", err)
	}
	t.swap = time.Since(start)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.swaps = p.scoring.last.swaps + 1
	p.scoring.last = t
	return nil
}

// makeScoring is what the programs of bpf/act.h read.
func makeScoring(s *dataplane.Scoring) (kernelScoring, error) {
	k := kernelScoring{Key: s.Canary.Key, Below: s.Canary.Below, Hold: uint64(s.Hold.Microseconds()), Rate: s.Rate, Reason: s.Reason}
	if s.Shadow {
		k.Shadow = 1
	}
	for i, m := range []*score.Scorer{s.Active, s.Trial} {
		if m == nil {
			continue
		}
		hash, err := m.Hash()
		if err != nil {
			return k, err
		}
		k.Models[i] = kernelModel{Hash: hashWords(hash), Version: m.Version, There: 1}
	}
	if s.Active == nil {
		k.Shadow = 1 // a trial alone decides nothing
	}
	return k, nil
}

func hashWords(h [32]byte) (w [4]uint64) {
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(h[8*i:])
	}
	return w
}

func wordsHash(w [4]uint64) (h [32]byte) {
	for i := range w {
		binary.NativeEndian.PutUint64(h[8*i:], w[i])
	}
	return h
}

// compileScoring makes the programs of both hooks.
func (p *Plane) compileScoring(s *dataplane.Scoring, t *lastScoring) (*scorerPrograms, error) {
	start := time.Now()
	models := [2]*score.Scorer{s.Active, s.Trial}
	var hashes [2][32]byte
	for i, m := range models {
		if m == nil {
			continue
		}
		var err error
		if hashes[i], err = m.Hash(); err != nil {
			return nil, err
		}
	}
	var c compiler
	starts := c.lay(models[:])
	leaves, err := leafMap(c.leaves)
	if err != nil {
		return nil, err
	}
	defer leaves.Close()
	c.leafFD = leaves.FD()
	specs, err := p.scorerSpecs()
	if err != nil {
		return nil, err
	}
	specs[0].Instructions = c.program(models, hashes, starts, hookCode{p.objs.ScoredNow.FD(), p.objs.ScorersXdp.FD(), xdpPass})
	specs[1].Instructions = c.program(models, hashes, starts, hookCode{p.objs.ScoredNow.FD(), p.objs.ScorersTcx.FD(), tcxNext})
	t.length = len(c.code)
	t.compile = time.Since(start)
	start = time.Now()
	defer func() { t.load = time.Since(start) }()
	return p.loadScorer(specs)
}

// scorerSpecs are empty programs that may stand in the arrays: those take only
// what is of the same kind as the programs that use them.
func (p *Plane) scorerSpecs() ([2]*ebpf.ProgramSpec, error) {
	var out [2]*ebpf.ProgramSpec
	for i, name := range []string{kernelProgHedgerowXdp, kernelProgHedgerowTcx} {
		like := p.spec.Programs[name]
		if like == nil {
			return out, fmt.Errorf("no program %s", name)
		}
		out[i] = &ebpf.ProgramSpec{Name: "hedgerow_score", Type: like.Type, AttachType: like.AttachType, Flags: like.Flags, License: "Apache-2.0"}
	}
	return out, nil
}

func (p *Plane) loadScorer(specs [2]*ebpf.ProgramSpec) (*scorerPrograms, error) {
	progs := new(scorerPrograms)
	for i, to := range []**ebpf.Program{&progs.xdp, &progs.tcx} {
		if p.scoring.refuse != nil {
			p.scoring.refuse(specs[i])
		}
		prog, err := ebpf.NewProgram(specs[i])
		if err != nil {
			progs.close()
			return nil, fmt.Errorf("load the scorer: %w", err)
		}
		*to = prog
	}
	return progs, nil
}

// swapScoring puts programs into the slot that is not in use, and then makes
// that the slot in use, by one store.
func (p *Plane) swapScoring(progs *scorerPrograms, goes *kernelScoring) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	slot := uint32(0)
	if p.cfg.Scoring == 1 {
		slot = 1
	}
	if err := p.objs.Scorings.Put(slot, goes); err != nil {
		return fmt.Errorf("write what goes with the scorer: %w", err)
	}
	if err := p.objs.ScorersXdp.Put(slot, progs.xdp); err != nil {
		return fmt.Errorf("put the scorer in its place: %w", err)
	}
	if err := p.objs.ScorersTcx.Put(slot, progs.tcx); err != nil {
		return fmt.Errorf("put the scorer in its place: %w", err)
	}
	was := p.cfg.Scoring
	p.cfg.Scoring = slot + 1
	if err := p.writeConfig(); err != nil {
		p.cfg.Scoring = was
		return err
	}
	return nil
}

// endScoring makes nothing be scored, and nothing held.
func (p *Plane) endScoring() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	p.cfg.Scoring = 0
	if err := p.writeConfig(); err != nil {
		return fmt.Errorf("end scoring: %w", err)
	}
	p.scoring.last = lastScoring{swaps: p.scoring.last.swaps}
	if err := p.freeHolds(func(*kernelHold) bool { return true }); err != nil {
		return fmt.Errorf("end scoring: %w", err)
	}
	if err := p.objs.Holding.Put(uint32(0), uint64(0)); err != nil {
		return fmt.Errorf("end scoring: %w", err)
	}
	for slot := range uint32(scorerSlots) {
		for _, m := range []*ebpf.Map{p.objs.ScorersXdp, p.objs.ScorersTcx} {
			if err := m.Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("end scoring: %w", err)
			}
		}
	}
	return nil
}

// placeActors puts the programs that act into the arrays, by role.
func (p *Plane) placeActors() error {
	for _, a := range p.at {
		progs, err := p.programs(a.variant())
		if err != nil {
			return err
		}
		at := scorerSlots + uint32(kernelRoles[a.Role.program()])
		if err := p.objs.ScorersXdp.Put(at, progs.HedgerowActXdp); err != nil {
			return fmt.Errorf("put the program that acts in its place: %w", err)
		}
		if err := p.objs.ScorersTcx.Put(at, progs.HedgerowActTcx); err != nil {
			return fmt.Errorf("put the program that acts in its place: %w", err)
		}
	}
	return nil
}

// freeHolds deletes the holds that are named.
func (p *Plane) freeHolds(which func(*kernelHold) bool) error {
	var keys []kernelFlowKey
	for k, h := range dump[kernelFlowKey, kernelHold](p.objs.FlowHolds) {
		if h.err != nil {
			return h.err
		}
		if which(&h.value) {
			keys = append(keys, k)
		}
	}
	for i := range keys {
		if err := p.objs.FlowHolds.Delete(&keys[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("free a flow: %w", err)
		}
	}
	return nil
}

// free lets one flow go. Where nothing was ever held it asks for no memory.
func (p *Plane) free(k flow.Key) error {
	if err := p.objs.Holding.Lookup(unsafe.Pointer(&p.buf.first), unsafe.Pointer(&p.buf.until)); err != nil {
		return fmt.Errorf("free flow %s: %w", k, err)
	}
	if p.buf.until == 0 {
		return nil
	}
	if err := p.objs.FlowHolds.Delete(p.buf.key(tableFlow, dataplane.Target{Flow: k})); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("free flow %s: %w", k, err)
	}
	return nil
}

// expireHolds takes out holds whose time is over. The kernel does not need it.
func (p *Plane) expireHolds() error {
	var until uint64
	if err := p.objs.Holding.Lookup(uint32(0), &until); err != nil || until == 0 {
		return err
	}
	now := uint64(bootNow())
	if err := p.freeHolds(func(h *kernelHold) bool { return h.Word>>8 <= now/1000 }); err != nil {
		return err
	}
	if now > until+uint64(time.Minute) && !holds[kernelFlowKey](p.objs.FlowHolds) {
		return p.objs.Holding.Put(uint32(0), uint64(0))
	}
	return nil
}

// Held implements [dataplane.Scorer].
func (p *Plane) Held() ([]dataplane.Hit, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, dataplane.ErrClosed
	}
	p.clock.adjust()
	now := uint64(bootNow()) / 1000
	var hits []dataplane.Hit
	for k, h := range dump[kernelFlowKey, kernelHold](p.objs.FlowHolds) {
		if h.err != nil {
			return nil, fmt.Errorf("held flows: %w", h.err)
		}
		v := &h.value
		if v.Word>>8 <= now {
			continue
		}
		hit := dataplane.Hit{Packets: v.Packets, Bytes: v.Bytes, Rule: dataplane.Rule{
			Target: dataplane.Target{Flow: fromFlowKey(&k)}, Action: dataplane.Action(v.Word & 0xff),
			Expires: p.clock.fromMicros(v.Word >> 8), Reason: v.Reason,
		}}
		if hit.Rule.Action == dataplane.RateLimit {
			hit.Rule.Rate = v.Rate
		}
		hits = append(hits, hit)
	}
	return hits, nil
}

// ScoringState implements [dataplane.Scorer].
func (p *Plane) ScoringState() (s dataplane.ScoringState, err error) {
	held, err := p.Held()
	if err != nil {
		return s, err
	}
	s.Held = len(held)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return s, dataplane.ErrClosed
	}
	if err := p.countScored(&s); err != nil {
		return s, fmt.Errorf("scoring state: %w", err)
	}
	t := &p.scoring.last
	s.Compile, s.Load, s.Swap, s.Instructions, s.Swaps = t.compile, t.load, t.swap, t.length, t.swaps
	var live kernelConfig
	if err := p.objs.Settings.Lookup(uint32(0), &live); err != nil {
		return s, fmt.Errorf("scoring state: read settings: %w", err)
	}
	if live.Scoring == 0 {
		return s, nil
	}
	s.Stale = uint64(bootNow())/1000 > live.Beat+live.DeadAfter
	var goes kernelScoring
	if err := p.objs.Scorings.Lookup(live.Scoring-1, &goes); err != nil {
		return s, fmt.Errorf("scoring state: %w", err)
	}
	s.Shadow = goes.Shadow != 0
	for i, to := range []**dataplane.Model{&s.Active, &s.Trial} {
		if m := &goes.Models[i]; m.There != 0 {
			*to = &dataplane.Model{Hash: wordsHash(m.Hash), Version: m.Version}
		}
	}
	return s, nil
}

func (p *Plane) countScored(s *dataplane.ScoringState) error {
	var per []kernelScored
	if err := p.objs.ScoredNow.Lookup(uint32(0), &per); err != nil {
		return err
	}
	for i := range per {
		c := &per[i]
		for m := range score.Milestones {
			s.Due[m] += c.Due[m]
			s.Scored[m] += c.Done[m]
		}
		for by := range s.Verdicts {
			for action := range s.Verdicts[by] {
				for outcome := range s.Verdicts[by][action] {
					s.Verdicts[by][action][outcome] += c.Verdicts[by<<5|action<<3|outcome]
				}
			}
		}
		s.Dropped += c.Dropped
	}
	return nil
}

// isVerdict tells a verdict from other samples in the ring.
func isVerdict(raw []byte) bool { return len(raw) == int(unsafe.Sizeof(kernelVerdict{})) }

// decodeVerdict makes ev of a verdict.
func decodeVerdict(raw []byte, clock *bootClock, ev *dataplane.Event) error {
	var v kernelVerdict
	if len(raw) < int(unsafe.Sizeof(v)) {
		return fmt.Errorf("verdict: %d bytes: expected %d", len(raw), unsafe.Sizeof(v))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), raw)
	action, outcome, at := score.Action(v.Action), dataplane.Outcome(v.Outcome), score.Milestone(v.Milestone)
	switch {
	case v.E.Kind != uint8(dataplane.EventVerdict):
		return fmt.Errorf("verdict: kind %d: expected %d", v.E.Kind, dataplane.EventVerdict)
	case action != score.RateLimit && action != score.Suspend:
		return fmt.Errorf("verdict: action %d: expected rate-limit or suspend", v.Action)
	case outcome >= dataplane.Outcomes || at >= score.Milestones:
		return fmt.Errorf("verdict: outcome %d, milestone %d: expected less than %d and %d", v.Outcome, v.Milestone, dataplane.Outcomes, score.Milestones)
	}
	*ev = dataplane.Event{Kind: dataplane.EventVerdict, Mode: dataplane.Mode(v.E.Mode), At: clock.unix(v.E.At), Verdict: &dataplane.Verdict{
		Model: wordsHash(v.Model), Version: v.Version, Trial: v.Trial != 0, Milestone: at, Score: v.Score, Action: action, Outcome: outcome,
	}}
	if v.Until != 0 {
		ev.Verdict.Until = clock.fromMicros(v.Until).UnixNano()
	}
	fillRecord(&v.E.Key, &v.E.Flow, clock, &ev.Record)
	return nil
}
