package xdpbench

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// FilterMost is how many addresses xdp-filter's table takes.
const FilterMost = 10000

// Filter is the tables of xdp-filter, which its own command has loaded and
// pinned. That command takes some 10 ms for an address, so they are filled here.
type Filter struct{ addrs, stats *ebpf.Map }

// filterSource is the flag of an entry that says: the source address.
const filterSource = 1

// OpenFilter opens the tables that are pinned in a folder and puts addresses
// into them, each of which is then looked for as a source.
func OpenFilter(dir string, addrs []netip.Addr) (*Filter, error) {
	if len(addrs) > FilterMost {
		return nil, fmt.Errorf("xdp-filter: %d addresses: expected at most %d", len(addrs), FilterMost)
	}
	f := new(Filter)
	if err := errors.Join(open(&f.addrs, dir, "filter_ipv4"), open(&f.stats, dir, "xdp_stats_map"), f.list(addrs)); err != nil {
		return nil, errors.Join(fmt.Errorf("xdp-filter: %w", err), f.Close())
	}
	return f, nil
}

func open(to **ebpf.Map, dir, name string) (err error) {
	if *to, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
		return fmt.Errorf("open table %s: %w", name, err)
	}
	return nil
}

func (f *Filter) list(addrs []netip.Addr) error {
	if f.addrs == nil {
		return nil // said already
	}
	each := make([]uint64, ebpf.MustPossibleCPU())
	for i := range each {
		each[i] = filterSource
	}
	for _, a := range addrs {
		if err := f.addrs.Put(a.As4(), each); err != nil {
			return fmt.Errorf("list %s: %w", a, err)
		}
	}
	return nil
}

// Verdicts reads xdp-filter's own counters, which are by what it told XDP.
func (f *Filter) Verdicts() (v Verdicts, err error) {
	for action := range uint32(5) {
		var per []struct{ Packets, Bytes uint64 }
		if err := f.stats.Lookup(action, &per); err != nil {
			return v, fmt.Errorf("xdp-filter: read counters: %w", err)
		}
		to := &v.Other
		switch action {
		case xdpDrop:
			to = &v.Dropped
		case xdpPass:
			to = &v.Passed
		}
		for _, one := range per {
			*to += one.Packets
		}
	}
	return v, nil
}

// Close lets go of the tables; the program stays where it was put.
func (f *Filter) Close() error {
	var errs []error
	for _, m := range []*ebpf.Map{f.addrs, f.stats} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
