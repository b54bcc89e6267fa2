package xdp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// routine is a function of a program: the stack that it uses, and whom it calls.
type routine struct {
	stack int
	calls []string
}

// routines takes a program apart, as the verifier does.
func routines(ins asm.Instructions) map[string]*routine {
	out := map[string]*routine{}
	var f *routine
	deep := func(offset int64) {
		f.stack = max(f.stack, int(-offset))
	}
	var frame [11]bool // registers that hold the frame pointer itself
	for _, in := range ins {
		if s := in.Symbol(); s != "" {
			f = &routine{}
			out[s], frame = f, [11]bool{}
		}
		op := in.OpCode
		switch {
		case in.IsFunctionCall():
			f.calls = append(f.calls, in.Reference())
		case op.Class().IsALU() && op.ALUOp() == asm.Mov && in.Src == asm.RFP && op.Source() == asm.RegSource:
			frame[in.Dst] = true
			continue
		case op.Class().IsALU() && op.ALUOp() == asm.Add && frame[in.Dst] && op.Source() == asm.ImmSource:
			deep(in.Constant)
		case op.Class().IsLoad() && in.Src == asm.RFP, op.Class().IsStore() && in.Dst == asm.RFP:
			deep(int64(in.Offset))
		}
		frame[in.Dst] = false
	}
	return out
}

// deepest is the chain of calls from name on with the most stack, rounded up as
// kernels before 6.3 do.
func deepest(of map[string]*routine, name string) (int, []string) {
	f := of[name]
	if f == nil {
		return 0, []string{name + " (unknown)"}
	}
	most, chain := 0, []string(nil)
	for _, c := range f.calls {
		if n, below := deepest(of, c); n >= most {
			most, chain = n, below
		}
	}
	own := (max(f.stack, 1) + 31) / 32 * 32
	return own + most, append([]string{fmt.Sprintf("%s %d", name, own)}, chain...)
}

// Linux gives a program 512 bytes of stack over all of a chain of calls, and
// until 6.3 rounds each function's share up to 32 bytes.
func TestStackFitsOldKernels(t *testing.T) {
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range spec.Programs {
		n, chain := deepest(routines(p.Instructions), name)
		t.Logf("%s: %d bytes: %s", name, n, strings.Join(chain, ", "))
		if n > 512 {
			t.Errorf("%s: %d bytes of stack: %s: expected at most 512", name, n, strings.Join(chain, ", "))
		}
	}
}
