package xdpbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

// Verdicts are how often a program said each thing.
type Verdicts struct{ Dropped, Passed, Other uint64 }

// All is how many packets the program saw.
func (v Verdicts) All() uint64 { return v.Dropped + v.Passed + v.Other }

// Less is what was added since an earlier reading.
func (v Verdicts) Less(was Verdicts) Verdicts {
	return Verdicts{v.Dropped - was.Dropped, v.Passed - was.Passed, v.Other - was.Other}
}

const (
	xdpDrop = 1
	xdpPass = 2
)

// Program is a packet program whose verdicts are counted. Whatever it says, the
// packet ends with it, so that what comes after it costs the same for all:
// nothing.
type Program struct {
	Name   string
	counts *ebpf.Map
	owned  []interface{ Close() error }
	// load makes the program between two pieces, see xdp.Measured.Wrap.
	load func(front, back asm.Instructions) (*ebpf.Program, error)

	stream *Stream // that runs were loaded for
	run    *ebpf.Program
}

func newProgram(name string, load func(front, back asm.Instructions) (*ebpf.Program, error)) (*Program, error) {
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Name: "verdicts", Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Program{Name: name, counts: counts, load: load}, nil
}

// Close lets go of the program and its tables. Links stay until they are closed.
func (p *Program) Close() error {
	errs := []error{p.counts.Close()}
	if p.run != nil {
		errs = append(errs, p.run.Close())
	}
	for _, c := range p.owned {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// count adds to the counter of the verdict in R0 and ends with a drop. One
// processor runs it at a time.
func (p *Program) count() asm.Instructions {
	return asm.Instructions{
		asm.And.Imm(asm.R0, 7),
		asm.LSh.Imm(asm.R0, 3),
		asm.LoadMapValue(asm.R1, p.counts.FD(), 0),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, xdpDrop),
		asm.Return(),
	}
}

// Verdicts reads the counters.
func (p *Program) Verdicts() (Verdicts, error) {
	var b [64]byte
	if err := p.counts.Lookup(uint32(0), &b); err != nil {
		return Verdicts{}, fmt.Errorf("%s: read verdicts: %w", p.Name, err)
	}
	var v Verdicts
	for i := range 8 {
		n := binary.NativeEndian.Uint64(b[8*i:])
		switch i {
		case xdpDrop:
			v.Dropped = n
		case xdpPass:
			v.Passed = n
		default:
			v.Other += n
		}
	}
	return v, nil
}

// Attach hooks the program to an interface of the caller's network namespace,
// in native mode. Closing what it returns takes it off.
func (p *Program) Attach(ifindex int) (interface{ Close() error }, error) {
	prog, err := p.load(nil, p.count())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	defer prog.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, fmt.Errorf("%s: attach: %w", p.Name, err)
	}
	return l, nil
}

// Run repeats the program n times over the stream's packets and returns the
// time of each, that of choosing a source included.
func (p *Program) Run(s *Stream, n int) (time.Duration, error) {
	if p.stream != s {
		if p.run != nil {
			p.run.Close()
		}
		front := append(s.rewrite("ready"), asm.Mov.Imm(asm.R0, 0).WithSymbol("ready"))
		prog, err := p.load(front, p.count())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.Name, err)
		}
		p.run, p.stream = prog, s
	}
	_, took, err := p.run.Benchmark(s.Frame(), n, nil)
	if err != nil {
		return 0, fmt.Errorf("%s: test run: %w", p.Name, err)
	}
	return took, nil
}

// Bare does nothing: the floor of every comparison.
func Bare() (*Program, error) {
	return newProgram("bare drop", simple(asm.Instructions{asm.Mov.Imm(asm.R0, xdpDrop)}))
}

// simple is a program of few instructions that leave a verdict in R0.
func simple(body asm.Instructions) func(front, back asm.Instructions) (*ebpf.Program, error) {
	return func(front, back asm.Instructions) (*ebpf.Program, error) {
		ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
		ins = append(append(append(ins, front...), body...), back...)
		return ebpf.NewProgram(&ebpf.ProgramSpec{Name: "bench", Type: ebpf.XDP, License: "Apache-2.0", Instructions: ins})
	}
}

// Hash looks the source address up in the kernel's hash map of n addresses.
func Hash(addrs []netip.Addr) (*Program, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(addrs))})
	if err != nil {
		return nil, fmt.Errorf("hash of %d: %w", len(addrs), err)
	}
	keys := make([][4]byte, len(addrs))
	for i, a := range addrs {
		keys[i] = a.As4()
	}
	if err := fill(m, keys); err != nil {
		return nil, errors.Join(fmt.Errorf("hash of %d: %w", len(addrs), err), m.Close())
	}
	return lookup("xdp hash", m, 0)
}

// Trie looks the source address up in the kernel's trie of n single addresses.
func Trie(addrs []netip.Addr) (*Program, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "trie", Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: uint32(len(addrs)), Flags: 1})
	if err != nil {
		return nil, fmt.Errorf("trie of %d: %w", len(addrs), err)
	}
	keys := make([][8]byte, len(addrs))
	for i, a := range addrs {
		b := a.As4()
		keys[i] = [8]byte{32, 0, 0, 0, b[0], b[1], b[2], b[3]}
	}
	if err := fill(m, keys); err != nil {
		return nil, errors.Join(fmt.Errorf("trie of %d: %w", len(addrs), err), m.Close())
	}
	return lookup("xdp lpm trie", m, 32)
}

func fill[K any](m *ebpf.Map, keys []K) error {
	values := make([]uint64, len(keys))
	for i := range values {
		values[i] = 1
	}
	const batch = 4096
	for at := 0; at < len(keys); at += batch {
		end := min(at+batch, len(keys))
		if _, err := m.BatchUpdate(keys[at:end], values[at:end], nil); err != nil {
			return err
		}
	}
	return nil
}

// lookup is a program around one map; bits above 0 make the key a trie's.
func lookup(name string, m *ebpf.Map, bits int64) (*Program, error) {
	body := bounds("fill_end")
	key := int16(-4)
	body = append(body, asm.LoadMem(asm.R1, asm.R7, offSource, asm.Word), asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word))
	if bits > 0 {
		key = -8
		body = append(body, asm.StoreImm(asm.RFP, key, bits, asm.Word))
	}
	body = append(body,
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(key)),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "fill_end"),
		asm.Mov.Imm(asm.R0, xdpDrop),
		asm.Ja.Label("done"),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("fill_end"),
		asm.Mov.Reg(asm.R0, asm.R0).WithSymbol("done"),
	)
	p, err := newProgram(name, simple(body))
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	p.owned = append(p.owned, m)
	return p, nil
}

// Hedgerow is the shipped program over a loaded plane, which stays the caller's.
func Hedgerow(name string, m *xdp.Measured) (*Program, error) { return newProgram(name, m.Wrap) }
