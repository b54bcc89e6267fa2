package xdp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Measured is a plane that is hooked nowhere: a measurement runs its program by
// itself, or puts a wrapped copy of it on a link of its own.
type Measured struct {
	*Detached
	slot uint32 // of the scorer that does not score just now, plus one; 0: none
}

// LoadMeasured is [OpenDetached] for measurements. Tables of single rules take
// maxRules entries each; 0 is as built in.
func LoadMeasured(o Options, maxRules uint32) (*Measured, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("load for measuring: %w", err)
	}
	o.maxRules = maxRules
	d, err := OpenDetached(o, false)
	if err != nil {
		return nil, fmt.Errorf("load for measuring: %w", err)
	}
	return &Measured{Detached: d}, nil
}

// LoadMeasuredLRU is LoadMeasured with the flows in the kernel's LRU_HASH: the
// same program on the table that the plane's own is measured against.
func LoadMeasuredLRU(o Options, maxRules uint32) (*Measured, error) {
	o.lruFlows = true
	return LoadMeasured(o, maxRules)
}

// FlowIDs reads the flow table out. A flow that was pushed out and came again
// has another id.
func (m *Measured) FlowIDs() (map[flow.Key]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refs, err := m.store.idle(0, 0, func(*kernelFlowKey, *kernelFlow) (limit, last int64) { return -1, 0 })
	if err != nil {
		return nil, err
	}
	ids := make(map[flow.Key]uint64, len(refs))
	for i := range refs {
		ids[fromFlowKey(&refs[i].key)] = refs[i].id
	}
	return ids, nil
}

// Heed says whether flows are scored by what SetScoring was given last. Turning
// it off and on again is one store each, so that packets with a scorer and without
// can be measured a moment apart.
func (m *Measured) Heed(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.Scoring != 0 {
		m.slot = m.cfg.Scoring
	}
	m.cfg.Scoring = 0
	if on {
		m.cfg.Scoring = m.slot
	}
	if err := m.writeConfig(); err != nil {
		return fmt.Errorf("heed the scorer: %w", err)
	}
	return nil
}

// ObjectHash is the start of the SHA-256 of the embedded object, in hex: two
// measurements with the same hash ran the same programs.
func ObjectHash() string {
	h := sha256.Sum256(_KernelBytes)
	return hex.EncodeToString(h[:8])
}

// Wrap loads a copy of the plane's XDP program over the plane's tables, called
// as it is by instructions around it: front runs with the context in R6 (and in
// R1), then the program, then back with its verdict in R0 and the context in
// R6; back ends with an exit. The caller closes the program.
func (m *Measured) Wrap(front, back asm.Instructions) (*ebpf.Program, error) {
	spec, err := makeSpec(m.o, m.first)
	if err != nil {
		return nil, err
	}
	body := spec.Programs[kernelProgHedgerowXdp]
	fn := btf.FuncMetadata(&body.Instructions[0])
	if fn == nil {
		return nil, errors.New("wrap: the program has no type information")
	}
	for i := range body.Instructions {
		body.Instructions[i] = body.Instructions[i].WithSource(nil) // a wrapper has no lines
	}
	inner, outer := *fn, *fn
	inner.Linkage = btf.StaticFunc
	outer.Name = "hedgerow_bench"
	body.Instructions[0] = btf.WithFuncMetadata(body.Instructions[0], &inner)
	wrapped := asm.Instructions{btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(outer.Name), &outer)}
	wrapped = append(wrapped, front...)
	wrapped = append(wrapped, asm.Mov.Reg(asm.R1, asm.R6), asm.Call.Label(inner.Name))
	wrapped = append(wrapped, back...)
	body.Instructions = append(wrapped, body.Instructions...)
	body.Name = outer.Name
	spec.Programs = map[string]*ebpf.ProgramSpec{outer.Name: body}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: m.shared()})
	if err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	defer coll.Close()
	return coll.DetachProgram(outer.Name), nil
}
