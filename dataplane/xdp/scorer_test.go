package xdp

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// probe is a vector to be scored, as bpf/types.h has it.
type probe struct {
	_         uint32
	v         [len(kernelScored{}.V)]uint32
	milestone uint64
}

// scorerRig runs a scorer's program over many vectors in one test run: a
// program in front takes them one by one, and first puts away what came of the
// one before.
type scorerRig struct {
	probes, answers, scored, count, next, behind *ebpf.Map
	front                                        *ebpf.Program
	in                                           []probe
	out                                          [][2]kernelOpinion
}

const rigSize = 20_000

func newScorerRig(t testing.TB) *scorerRig {
	t.Helper()
	needKernel(t)
	array := func(typ ebpf.MapType, size uintptr, n, flags uint32) *ebpf.Map {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: uint32(size), MaxEntries: n, Flags: flags})
		must(t, err)
		t.Cleanup(func() { m.Close() })
		return m
	}
	const mmapable = 1 << 10
	r := &scorerRig{
		probes:  array(ebpf.Array, unsafe.Sizeof(probe{}), rigSize+1, mmapable),
		answers: array(ebpf.Array, unsafe.Sizeof([2]kernelOpinion{}), rigSize+1, mmapable),
		scored:  array(ebpf.Array, unsafe.Sizeof(kernelScored{}), 1, 0), // of all processors: a long run may change them
		count:   array(ebpf.Array, 8, 1, mmapable),
		next:    array(ebpf.ProgramArray, 4, 8, 0),
		behind:  array(ebpf.ProgramArray, 4, 1, 0),
	}
	r.in = unsafe.Slice((*probe)(unsafe.Pointer(&mapForTest(t, r.probes, (rigSize+1)*unsafe.Sizeof(probe{}))[0])), rigSize+1)
	r.out = unsafe.Slice((*[2]kernelOpinion)(unsafe.Pointer(&mapForTest(t, r.answers, (rigSize+1)*unsafe.Sizeof([2]kernelOpinion{}))[0])), rigSize+1)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: r.frontCode()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { prog.Close() })
	r.front = prog
	return r
}

// frontCode: R6 the context, R7 struct scored, R8 the count, R9 where to write or read.
func (r *scorerRig) frontCode() asm.Instructions {
	look := func(m *ebpf.Map, into asm.Register) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"), asm.Mov.Reg(into, asm.R0),
		}
	}
	code := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.StoreImm(asm.RFP, -4, 0, asm.Word)}
	code = append(code, look(r.scored, asm.R7)...)
	code = append(code, look(r.count, asm.R8)...)
	code = append(code, asm.LoadMem(asm.R1, asm.R8, 0, asm.DWord), asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word))
	code = append(code, look(r.answers, asm.R9)...)
	for at := int16(0); at < 2*opinionSize; at += 8 {
		code = append(code, asm.LoadMem(asm.R1, asm.R7, atOpinions+at, asm.DWord), asm.StoreMem(asm.R9, at, asm.R1, asm.DWord))
	}
	code = append(code, look(r.probes, asm.R9)...)
	at := int16(unsafe.Offsetof(probe{}.milestone))
	for i := int16(0); i < at; i += 8 {
		code = append(code, asm.LoadMem(asm.R1, asm.R9, i, asm.DWord), asm.StoreMem(asm.R7, i, asm.R1, asm.DWord))
	}
	return append(code,
		asm.LoadMem(asm.R1, asm.R9, at, asm.DWord), asm.StoreMem(asm.R7, atMilestone, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R8, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R8, 0, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, r.behind.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return(),
	)
}

// load compiles models and puts them behind the front.
func (r *scorerRig) load(t testing.TB, models [2]*score.Scorer) {
	t.Helper()
	var hashes [2][32]byte
	for i, m := range models {
		if m != nil {
			var err error
			hashes[i], err = m.Hash()
			must(t, err)
		}
	}
	var c compiler
	starts := c.lay(models[:])
	leaves, err := leafMap(c.leaves)
	must(t, err)
	defer leaves.Close()
	c.leafFD = leaves.FD()
	code := c.program(models, hashes, starts, hookCode{r.scored.FD(), r.next.FD(), xdpPass})
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: code})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer prog.Close()
	must(t, r.behind.Put(uint32(0), prog))
}

// run scores the first n probes.
func (r *scorerRig) run(t testing.TB, n int) [][2]kernelOpinion {
	t.Helper()
	must(t, r.count.Put(uint32(0), uint64(0)))
	ret, _, err := r.front.Benchmark(make([]byte, 64), n+1, nil)
	must(t, err)
	if ret != xdpPass {
		t.Fatalf("verdict %d: expected that of the scorer", ret)
	}
	return r.out[1 : n+1]
}

// vectors is how many a test tries: a million on demand.
func vectors() int {
	if os.Getenv("HEDGEROW_LONG") == "1" {
		return 1_000_000
	}
	return rigSize
}

// put lays the probe of a vector.
func (r *scorerRig) put(i int, v *score.Vector, at score.Milestone) {
	for k, x := range v {
		r.in[i].v[k] = uint32(x - score.Floor(k))
	}
	r.in[i].milestone = uint64(at)
}

// TestScorersAgreeBitForBit: the program says what package score says, of any
// scorers and any vectors, those at the edges of their questions above all.
func TestScorersAgreeBitForBit(t *testing.T) {
	r := newScorerRig(t)
	rng := rand.New(rand.NewPCG(11, uint64(vectors())))
	each := min(vectors(), rigSize)
	if vectors() <= rigSize {
		each /= 10 // several scorers in the short form, too
	}
	for done := 0; done < vectors(); done += each {
		models := [2]*score.Scorer{scoretest.Random(rng, 1+rng.IntN(5), rng.IntN(40), 0)}
		if rng.IntN(2) == 0 {
			models[1] = scoretest.Random(rng, 1+rng.IntN(5), rng.IntN(40), 0)
		}
		if rng.IntN(4) == 0 {
			models[0], models[1] = models[1], models[0]
		}
		r.load(t, models)
		vs := make([]score.Vector, each)
		for i := range vs {
			vs[i] = scoretest.Vector(rng, scoretest.Either(rng, models))
			r.put(i, &vs[i], score.Milestone(rng.IntN(score.Milestones)))
		}
		r.compare(t, models, vs)
	}
}

func (r *scorerRig) compare(t testing.TB, models [2]*score.Scorer, vs []score.Vector) {
	t.Helper()
	for i, got := range r.run(t, len(vs)) {
		at, any := score.Milestone(r.in[i].milestone), false
		var want [2]kernelOpinion
		for k, m := range models {
			if m == nil {
				continue
			}
			want[k].Score = m.Eval(at, &vs[i])
			want[k].Action = uint32(m.Decide(at, want[k].Score))
			any = any || want[k].Action != 0
		}
		for k, m := range models {
			if got[k].Score != want[k].Score || got[k].Action != want[k].Action {
				t.Fatalf("vector %d, milestone %d, scorer %d: the program says %d and %d, the reference %d and %d: %v", i, at, k,
					got[k].Score, got[k].Action, want[k].Score, want[k].Action, vs[i])
			}
			if m == nil || !any {
				continue
			}
			hash, err := m.Hash()
			must(t, err)
			if wordsHash(got[k].Model) != hash || got[k].Version != m.Version {
				t.Fatalf("the program says that it is %x, version %d: expected %x, %d", got[k].Model, got[k].Version, hash, m.Version)
			}
		}
	}
}

// The largest scorers there can be must load, and agree.
func TestLargestScorersLoad(t *testing.T) {
	r := newScorerRig(t)
	rng := rand.New(rand.NewPCG(12, 12))
	models := [2]*score.Scorer{scoretest.Random(rng, 5, score.MaxTrees, 6), scoretest.Random(rng, 5, score.MaxTrees, 6)}
	r.load(t, models)
	vs := make([]score.Vector, 500)
	for i := range vs {
		vs[i] = scoretest.Vector(rng, models[i%2])
		r.put(i, &vs[i], score.Milestone(i%score.Milestones))
	}
	r.compare(t, models, vs)
}

// A program that is not what the reference says would be seen: the comparison
// itself is tried with a leaf that is one too many.
func TestComparisonSeesOneLeaf(t *testing.T) {
	r := newScorerRig(t)
	rng := rand.New(rand.NewPCG(13, 13))
	s := scoretest.Random(rng, 1, 5, 2)
	r.load(t, [2]*score.Scorer{s})
	v := scoretest.Vector(rng, s)
	r.put(0, &v, 0)
	b, err := s.MarshalBinary()
	must(t, err)
	other, err := score.Decode(slices.Clone(b))
	must(t, err)
	for i := range other.Forests[0].Trees[0].Leaf {
		other.Forests[0].Trees[0].Leaf[i] ^= 1
	}
	if got := r.run(t, 1)[0][0].Score; got != s.Eval(0, &v) || got == other.Eval(0, &v) {
		t.Errorf("the program says %d: expected %d, and not %d", got, s.Eval(0, &v), other.Eval(0, &v))
	}
}

// realVectors are those of real flows at their milestones.
func realVectors(t *testing.T, pattern string) (vs []score.Vector, at []score.Milestone) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(realdata.Dir(t, "."), pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("captures %s: %d, %v: expected some", pattern, len(names), err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		must(t, err)
		src, err := pcapgo.NewReader(f)
		if err != nil {
			must(t, f.Close())
			continue // of a newer form
		}
		p, err := softplane.Open(softplane.Options{})
		must(t, err)
		for len(vs) < rigSize {
			frame, info, err := src.ReadPacketData()
			if err != nil {
				break // at its end, or where it was cut
			}
			p.Captured(softplane.LinkType(src.LinkType()), frame, info.Length, info.Timestamp)
			p.Drain(func(e *dataplane.Event) {
				v, m, ok := score.FromRecord(&e.Record)
				if ok && e.Kind == dataplane.EventMilestone && len(vs) < rigSize {
					vs, at = append(vs, v), append(at, m)
				}
			})
		}
		must(t, errors.Join(p.Close(), f.Close()))
	}
	return vs, at
}

// TestScorersAgreeOnRealFlows: scorers whose questions are at the very values of
// real flows, over all of them.
func TestScorersAgreeOnRealFlows(t *testing.T) {
	r := newScorerRig(t)
	vs, at := realVectors(t, "pcap-ndpi-tests/pcap/[s-w]*.pcap")
	if len(vs) < 1000 {
		t.Fatalf("%d vectors: expected more of real flows", len(vs))
	}
	rng := rand.New(rand.NewPCG(14, 14))
	for range 3 {
		s := scoretest.Random(rng, 5, 64, 6)
		for i := range s.Forests {
			for k := range s.Forests[i].Trees {
				tree := &s.Forests[i].Trees[k]
				for l := range tree.Depth {
					tree.Threshold[l] = min(vs[rng.IntN(len(vs))][tree.Feature[l]], math.MaxInt32-1)
				}
			}
		}
		models := [2]*score.Scorer{s}
		r.load(t, models)
		for i := range vs {
			r.put(i, &vs[i], at[i])
		}
		r.compare(t, models, vs)
	}
	t.Logf("%d vectors of real flows", len(vs))
}

// FuzzScorersAgree looks for a scorer and a vector of which the program says
// something else than package score.
func FuzzScorersAgree(f *testing.F) {
	f.Add(uint64(1), byte(0), []byte{0xff, 0xff, 0xff, 0x7f})
	f.Add(uint64(2), byte(4), []byte{0, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, seed uint64, m byte, raw []byte) {
		r := newScorerRig(t)
		rng := rand.New(rand.NewPCG(seed, 0))
		s := scoretest.Random(rng, 1+rng.IntN(5), rng.IntN(40), 0)
		v, at := scoretest.Vector(rng, s), score.Milestone(m%score.Milestones)
		for i := 0; i < score.Dim && 4*i+4 <= len(raw); i++ {
			v[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		scoretest.Raise(&v)
		models := [2]*score.Scorer{s}
		r.load(t, models)
		r.put(0, &v, at)
		r.compare(t, models, []score.Vector{v})
	})
}
