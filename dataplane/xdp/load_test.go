package xdp

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// mayLoad says whether programs can be loaded.
func mayLoad() bool { return os.Getuid() == 0 }

// needKernel skips a test that needs root and a kernel with BPF, unless the
// environment says that it must run.
func needKernel(tb testing.TB) {
	tb.Helper()
	if mayLoad() {
		if err := rlimit.RemoveMemlock(); err != nil {
			tb.Fatalf("remove memlock limit: %v", err)
		}
		return
	}
	if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
		tb.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
	}
	tb.Skip("needs root: the programs are loaded into the kernel")
}

// The programs must pass the verifier with room to spare: what it looks at
// grows with each change, and older kernels look at more.
func TestVerifierEffort(t *testing.T) {
	needKernel(t)
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	var objs kernelObjects
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	defer objs.Close()
	for name, prog := range map[string]interface {
		VerifiedInstructions() (uint32, bool)
	}{"xdp": info(t, objs.HedgerowXdp), "tcx": info(t, objs.HedgerowTcx)} {
		got, ok := prog.VerifiedInstructions()
		if !ok {
			t.Skip("this kernel does not tell")
		}
		t.Logf("%s: %d instructions verified", name, got)
		if got > 400_000 {
			t.Errorf("%s: the verifier processed %d instructions: expected at most 400000 of its 1000000", name, got)
		}
	}
}

func info(t *testing.T, p *ebpf.Program) *ebpf.ProgramInfo {
	t.Helper()
	i, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return i
}
