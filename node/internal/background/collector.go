package background

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// While something is computed the collector of Go's memory runs less often: its threads
// have the usual priority, and each of its runs makes packets wait. The price is memory,
// of which no more than spare is taken beyond what Go would take anyway.
const (
	spare   = 128 << 20 // bytes
	seldom  = 800       // percent of the live heap at most
	without = -1        // somebody switched the collector off
)

// collector is the process's: there is one, whatever the number of runners.
var collector struct {
	mu     sync.Mutex
	works  int
	before int // percent
}

// rarer has the collector run less often until the result is called.
func rarer() (again func()) {
	c := &collector
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.works++; c.works == 1 {
		usual, live := heap()
		c.before = debug.SetGCPercent(percent(usual, live))
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.works--; c.works == 0 {
			debug.SetGCPercent(c.before)
		}
	}
}

// percent is how far the heap may grow beyond what is live before it is collected: as
// far as usual, or by spare where that is more.
func percent(usual int, live uint64) int {
	if usual < 0 {
		return without
	}
	p := 100 * float64(spare) / math.Max(float64(live), 1)
	return max(usual, int(math.Min(p, seldom)))
}

// heap is how far it may grow now, in percent of what is live, and the bytes that the last
// collection left.
func heap() (usual int, live uint64) {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 || s[1].Value.Kind() != metrics.KindUint64 || s[0].Value.Uint64() > math.MaxInt32 {
		return without, 0
	}
	return int(s[0].Value.Uint64()), s[1].Value.Uint64()
}
