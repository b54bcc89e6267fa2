package feature

import "unsafe"

// ways is how many entries share a set; within a set the least recently used goes.
const ways = 8

// A table maps 64-bit keys to entries in memory that is fixed when it is made.
// It is set-associative: a key may live in the eight places of one set only, so
// a flood of keys evicts old entries at a bounded cost each. Key 0 is "empty".
type table[E any] struct {
	mask    uint64
	keys    []uint64
	used    []int64
	entries []E
}

// newTable holds at least n entries, rounded up to a power of two.
func newTable[E any](n int) table[E] {
	size := ways
	for size < n {
		size *= 2
	}
	return table[E]{
		mask: uint64(size/ways - 1), keys: make([]uint64, size),
		used: make([]int64, size), entries: make([]E, size),
	}
}

// get finds the entry of a key, nil when it is not there.
func (t *table[E]) get(key uint64) *E {
	at := int(key&t.mask) * ways
	for i := at; i < at+ways; i++ {
		if t.keys[i] == key {
			return &t.entries[i]
		}
	}
	return nil
}

// put finds or makes the entry of a key; fresh says that it is new (and zero).
func (t *table[E]) put(key uint64, now int64) (e *E, fresh bool) {
	at := int(key&t.mask) * ways
	oldest := at
	for i := at; i < at+ways; i++ {
		if t.keys[i] == key {
			t.used[i] = now
			return &t.entries[i], false
		}
		if t.keys[i] == 0 {
			if t.keys[oldest] != 0 {
				oldest = i
			}
		} else if t.keys[oldest] != 0 && t.used[i] < t.used[oldest] {
			oldest = i
		}
	}
	var zero E
	t.keys[oldest], t.used[oldest], t.entries[oldest] = key, now, zero
	return &t.entries[oldest], true
}

func (t *table[E]) clear() {
	clear(t.keys)
	clear(t.used)
	clear(t.entries)
}

func (t *table[E]) bytes() int {
	var e E
	return len(t.keys) * (16 + int(unsafe.Sizeof(e)))
}

// A window counts over the current and the previous half window.
type window struct {
	epoch     int64
	cur, prev float64
}

// roll moves the window on to an epoch; a clock that went back counts as now.
func (w *window) roll(epoch int64) {
	switch {
	case epoch <= w.epoch:
	case epoch == w.epoch+1:
		w.prev, w.cur, w.epoch = w.cur, 0, epoch
	default:
		w.prev, w.cur, w.epoch = 0, 0, epoch
	}
}

func (w *window) add(epoch int64, x float64) {
	w.roll(epoch)
	w.cur += x
}

// sum is the total as of an epoch, without changing the window.
func (w *window) sum(epoch int64) float64 {
	switch {
	case epoch <= w.epoch:
		return w.cur + w.prev
	case epoch == w.epoch+1:
		return w.cur
	}
	return 0
}

// A distinct counts different values over the same two halves by linear
// counting (Whang, Vander-Zanden, Taylor 1990) in 256 bits each: within a few
// per cent up to some 500 values, saturating near 1,400.
type distinct struct {
	epoch     int64
	cur, prev [4]uint64
}

func (d *distinct) add(epoch int64, hash uint64) {
	switch {
	case epoch <= d.epoch:
	case epoch == d.epoch+1:
		d.prev, d.cur, d.epoch = d.cur, [4]uint64{}, epoch
	default:
		d.prev, d.cur, d.epoch = [4]uint64{}, [4]uint64{}, epoch
	}
	d.cur[hash>>62] |= 1 << (hash >> 56 & 63)
}

func (d *distinct) count(epoch int64) float64 {
	if epoch > d.epoch+1 {
		return 0
	}
	both := d.cur
	if epoch <= d.epoch {
		for i := range both {
			both[i] |= d.prev[i]
		}
	}
	return linearCount(&both)
}
