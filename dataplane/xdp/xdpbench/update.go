package xdpbench

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Update is the least that a change in the kernel's tables costs: one call that
// writes the only number of an array.
type Update struct {
	m     *ebpf.Map
	key   uint32
	value uint64
}

// NewUpdate makes the array.
func NewUpdate() (*Update, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "update", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("array of one: %w", err)
	}
	return &Update{m: m}, nil
}

// Do writes the number once, one higher each time.
func (u *Update) Do() error {
	u.value++
	return u.m.Put(unsafe.Pointer(&u.key), unsafe.Pointer(&u.value))
}

// Value reads the number.
func (u *Update) Value() (n uint64, err error) {
	err = u.m.Lookup(u.key, &n)
	return n, err
}

// Close lets go of the array.
func (u *Update) Close() error { return u.m.Close() }
