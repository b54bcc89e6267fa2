package xdp

import (
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// always finds every flow idle.
func always(*kernelFlowKey, *kernelFlow) (limit, last int64) { return -1, 0 }

// tracked lists every flow with its record, as the kernel has it.
func tracked(t *testing.T, f fixture) map[flow.Key]kernelFlow {
	t.Helper()
	refs, err := f.store.idle(0, 0, always)
	check(t, err)
	all := make(map[flow.Key]kernelFlow, len(refs))
	for i := range refs {
		flat := f.store.(*flowTable)
		k := fromFlowKey(&refs[i].key)
		if _, twice := all[k]; twice {
			t.Errorf("%s is in the table twice", k)
		}
		if refs[i].egg {
			all[k] = hatched(&flat.eggs[refs[i].at])
		} else {
			all[k] = flat.slots[refs[i].at].Flow
		}
	}
	return all
}

// forget takes one flow out of the table.
func forget(t *testing.T, f fixture, k flow.Key) {
	t.Helper()
	refs, err := f.store.idle(0, 0, always)
	check(t, err)
	for i := range refs {
		if fromFlowKey(&refs[i].key) != k {
			continue
		}
		if _, ok, err := f.store.end(&refs[i], 0, always); !ok || err != nil {
			t.Errorf("forget %s: %v, %v", k, ok, err)
		}
		return
	}
	t.Errorf("forget %s: not in the table", k)
}
