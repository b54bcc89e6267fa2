package xdp

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// Places of struct scored in bpf/types.h.
const (
	atFeatures  = int16(unsafe.Offsetof(kernelScored{}.V))
	atMilestone = int16(unsafe.Offsetof(kernelScored{}.Milestone))
	atOpinions  = int16(unsafe.Offsetof(kernelScored{}.By))
	opinionSize = int16(unsafe.Sizeof(kernelOpinion{}))
	atDone      = int16(unsafe.Offsetof(kernelScored{}.Done))
	atAct       = int16(unsafe.Offsetof(kernelScored{}.Act))
	atScore     = int16(unsafe.Offsetof(kernelOpinion{}.Score))
	atAction    = int16(unsafe.Offsetof(kernelOpinion{}.Action))
	atVersion   = int16(unsafe.Offsetof(kernelOpinion{}.Version))
	atModel     = int16(unsafe.Offsetof(kernelOpinion{}.Model))
)

// Leaves are kept unsigned, so that one load widens them.
const leafBias = 1 << 15

// middle is where R6 points to in struct scored, so that nearly all features are within
// 128 bytes of it either way: their offsets take one byte of the processor's
// instructions, which are most of what a scorer is.
const middle = 128

// hookCode is what differs between the programs of the two hooks.
type hookCode struct {
	scored, next int // maps, by their descriptors: where the flow is, and the programs to go on with
	pass         int32
}

// compiler writes the instructions of scorers. Registers: R6 is the middle of struct scored,
// R7 the context, R8 the leaves of a forest, R9 the sum; what a tree asks
// gathers in R0.
type compiler struct {
	code   asm.Instructions
	leaves []byte
	leafFD int
	labels int
}

func (c *compiler) emit(ins ...asm.Instruction) { c.code = append(c.code, ins...) }

// label names the instruction that is emitted next.
func (c *compiler) label() string {
	c.labels++
	return fmt.Sprintf("l%d", c.labels)
}

// lay writes the leaves of all forests and says where each begins.
func (c *compiler) lay(models []*score.Scorer) (starts [][]uint32) {
	for _, s := range models {
		var of []uint32
		if s != nil {
			for i := range s.Forests {
				of = append(of, uint32(len(c.leaves)))
				for k := range s.Forests[i].Trees {
					c.leaves = spread(c.leaves, &s.Forests[i].Trees[k])
				}
			}
		}
		starts = append(starts, of)
	}
	return starts
}

// room is how many bytes the leaves of a tree take.
func room(depth int) int { return 4<<depth - depth - 2 }

// spread appends the leaves of a tree. Its program adds 4<<l - 1 for each level l at
// which the value is not greater, and no other sum is within two bytes of one of those.
func spread(to []byte, t *score.Tree) []byte {
	all := make([]byte, room(int(t.Depth)))
	for n, leaf := range t.Leaf {
		at := 0
		for l := range int(t.Depth) {
			if n>>l&1 == 0 {
				at += 4<<l - 1
			}
		}
		binary.NativeEndian.PutUint16(all[at:], uint16(int32(leaf)+leafBias))
	}
	return append(to, all...)
}

// program is the whole of it for one hook. models[1], or models[0], may be nil.
func (c *compiler) program(models [2]*score.Scorer, hashes [2][32]byte, starts [][]uint32, h hookCode) asm.Instructions {
	c.code = nil
	c.emit(
		asm.Mov.Reg(asm.R7, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, h.scored),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "there"),
		asm.Mov.Imm(asm.R0, h.pass),
		asm.Return(),
		asm.LoadMem(asm.R1, asm.R0, atMilestone, asm.Word).WithSymbol("there"),
		asm.And.Imm(asm.R1, 7),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.Add.Imm(asm.R6, middle),
		asm.LoadMem(asm.R2, asm.R1, atDone, asm.DWord),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, atDone, asm.R2, asm.DWord),
	)
	for i, s := range models {
		c.scorer(atOpinions+int16(i)*opinionSize, s, starts[i])
	}
	c.emit(
		asm.LoadMem(asm.R0, asm.R6, atOpinions+atAction-middle, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, atOpinions+opinionSize+atAction-middle, asm.Word),
		asm.Or.Reg(asm.R0, asm.R1),
		asm.JEq.Imm(asm.R0, 0, "pass"),
	)
	for i, s := range models {
		if s != nil {
			c.name(atOpinions+int16(i)*opinionSize, s.Version, hashes[i])
		}
	}
	c.emit(
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.LoadMapPtr(asm.R2, h.next),
		asm.LoadMem(asm.R3, asm.R6, atAct-middle, asm.Word),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, h.pass).WithSymbol("pass"),
		asm.Return(),
	)
	return c.code
}

// name writes down who decides.
func (c *compiler) name(at int16, version uint32, hash [32]byte) {
	for w := range int16(4) {
		c.emit(
			asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(hash[8*w:])), asm.DWord),
			asm.StoreMem(asm.R6, at+atModel+8*w-middle, asm.R1, asm.DWord),
		)
	}
	c.emit(
		asm.Mov.Imm(asm.R1, int32(version)),
		asm.StoreMem(asm.R6, at+atVersion-middle, asm.R1, asm.Word),
	)
}

// scorer leaves score and action of one model at its place.
func (c *compiler) scorer(at int16, s *score.Scorer, starts []uint32) {
	c.emit(asm.Mov.Imm(asm.R9, 0), asm.Mov.Imm(asm.R0, 0))
	if s == nil {
		c.emit(asm.StoreMem(asm.R6, at+atScore-middle, asm.R9, asm.Word), asm.StoreMem(asm.R6, at+atAction-middle, asm.R0, asm.Word))
		return
	}
	for i := range s.Forests {
		c.onlyAt(s, i, func() { c.forest(&s.Forests[i], starts[i]) })
	}
	c.emit(
		asm.StoreMem(asm.R6, at+atScore-middle, asm.R9, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, atMilestone-middle, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
	)
	done := c.label()
	for m, st := range s.Steps {
		next := c.label()
		c.emit(
			asm.JNE.Imm(asm.R1, int32(m), next),
			asm.JSLT.Imm(asm.R9, st.Limit, done),
			asm.Mov.Imm(asm.R0, int32(score.RateLimit)),
			asm.JSLT.Imm(asm.R9, st.Suspend, done),
			asm.Mov.Imm(asm.R0, int32(score.Suspend)),
			asm.Ja.Label(done),
			asm.Mov.Reg(asm.R1, asm.R1).WithSymbol(next),
		)
	}
	c.emit(asm.StoreMem(asm.R6, at+atAction-middle, asm.R0, asm.Word).WithSymbol(done))
}

// onlyAt emits what then does for the milestones that use a forest.
func (c *compiler) onlyAt(s *score.Scorer, forest int, then func()) {
	mask := int32(0)
	for m, st := range s.Steps {
		if int(st.Forest) == forest {
			mask |= 1 << m
		}
	}
	if mask == 1<<score.Milestones-1 {
		then()
		return
	}
	skip := c.label()
	c.emit(
		asm.LoadMem(asm.R1, asm.R6, atMilestone-middle, asm.Word),
		asm.And.Imm(asm.R1, 7),
		asm.Mov.Imm(asm.R2, mask),
		asm.RSh.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, 1),
		asm.JEq.Imm(asm.R2, 0, skip),
	)
	then()
	c.emit(asm.Mov.Reg(asm.R9, asm.R9).WithSymbol(skip))
}

func (c *compiler) forest(f *score.Forest, start uint32) {
	c.emit(asm.Mov.Imm(asm.R9, f.Base-int32(len(f.Trees))*leafBias))
	if len(f.Trees) == 0 {
		return
	}
	c.emit(asm.LoadMapValue(asm.R8, c.leafFD, start))
	at := int16(0)
	for i := range f.Trees {
		c.tree(&f.Trees[i], at)
		at += int16(room(int(f.Trees[i].Depth)))
	}
}

// tree adds a leaf to the sum. A value less the next above the threshold is negative
// where it is not greater, and then its upper bits are ones, as neither has more than 32:
// shifted down, l+2 of them stay, and otherwise none. Their sum is the leaf's distance in
// bytes. They are added, not joined by "or", after which older kernels (6.1) know no
// bounds any more.
func (c *compiler) tree(t *score.Tree, at int16) {
	for l := range int(t.Depth) {
		r := asm.R1
		if l == 0 {
			r = asm.R0
		}
		c.emit(asm.LoadMem(r, asm.R6, atFeatures+4*int16(t.Feature[l])-middle, asm.Word))
		c.subtract(r, int64(t.Threshold[l])+1-int64(score.Floor(int(t.Feature[l]))))
		c.emit(asm.RSh.Imm(r, int32(62-l)))
		if l > 0 {
			c.emit(asm.Add.Reg(asm.R0, r))
		}
	}
	c.emit(
		asm.Add.Reg(asm.R0, asm.R8),
		asm.LoadMem(asm.R0, asm.R0, at, asm.Half),
		asm.Add.Reg(asm.R9, asm.R0),
	)
}

// subtract takes x from a feature as struct scored has it, which is not negative: from
// a threshold below the feature's floor nothing can be taken that makes it so.
func (c *compiler) subtract(r asm.Register, x int64) {
	x = max(x, 0)
	c.emit(asm.Sub.Imm(r, int32(min(x, math.MaxInt32))))
	if x > math.MaxInt32 {
		c.emit(asm.Sub.Imm(r, int32(x-math.MaxInt32)))
	}
}

// scorerPrograms are what a compiled scorer is in the kernel.
type scorerPrograms struct {
	xdp, tcx *ebpf.Program
}

func (s *scorerPrograms) close() {
	for _, p := range []*ebpf.Program{s.xdp, s.tcx} {
		if p != nil {
			_ = p.Close()
		}
	}
}

// leafMap holds leaves where only programs made with it read them; nothing can
// change them any more.
func leafMap(leaves []byte) (*ebpf.Map, error) {
	if len(leaves) == 0 {
		leaves = make([]byte, 8)
	}
	if len(leaves) > math.MaxInt32 {
		return nil, fmt.Errorf("scorer: %d bytes of leaves", len(leaves))
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "scorer_leaves", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(leaves)), MaxEntries: 1, Flags: flagReadOnlyProgram,
	})
	if err != nil {
		return nil, fmt.Errorf("scorer: make the table of leaves: %w", err)
	}
	if err := m.Put(uint32(0), leaves); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("scorer: write the table of leaves: %w", err)
	}
	if err := m.Freeze(); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("scorer: freeze the table of leaves: %w", err)
	}
	return m, nil
}

// flagReadOnlyProgram is BPF_F_RDONLY_PROG.
const flagReadOnlyProgram = 1 << 7
