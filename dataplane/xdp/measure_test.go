package xdp

import (
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// The wrapped program means what the plane's own means, over the same tables,
// and the instructions behind it see its verdict.
func TestWrapKeepsTheVerdict(t *testing.T) {
	needKernel(t)
	m, err := LoadMeasured(Options{Mode: dataplane.Enforce}, 0)
	check(t, err)
	defer m.Close()
	prog, err := m.Wrap(nil, asm.Instructions{asm.Add.Imm(asm.R0, 100), asm.Return()})
	check(t, err)
	defer prog.Close()
	s := planetest.NewSession(endpoint("192.0.2.1:4000"), endpoint("10.0.0.1:443"))
	frame := s.Data(0, []byte("x")).Frame
	for _, c := range []struct {
		block bool
		want  uint32
	}{{false, 102}, {true, 101}} {
		if c.block {
			check(t, m.Apply(dataplane.Rule{Target: dataplane.Peer(endpoint("192.0.2.1:0").Addr()), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}))
		}
		got, err := runOn(prog, frame)
		check(t, err)
		if got != c.want {
			t.Errorf("blocked %v: verdict %d: expected %d", c.block, got, c.want)
		}
	}
	st, err := m.Stats()
	check(t, err)
	if st.Packets != 2 || st.Dropped != 1 {
		t.Errorf("stats %+v: expected the wrapped program to count in the plane's tables", st)
	}
}
