package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// bulkTwin looks at every entry of the list.
func bulkTwin(list []dataplane.Listed, a netip.Addr, now time.Time) (best *dataplane.Listed) {
	for i := range list {
		l := &list[i]
		switch {
		case !l.Prefix.Contains(a) || !l.Expires.After(now):
		case best == nil, l.Prefix.Bits() > best.Prefix.Bits():
			best = l
		case l.Prefix.Bits() == best.Prefix.Bits() &&
			Outlives(l.Expires.UnixNano(), best.Expires.UnixNano(), l.Reason, best.Reason):
			best = l
		}
	}
	return best
}

func TestBulkAgreesWithItsTwin(t *testing.T) {
	for seed := range uint64(12) {
		w := world{rand.New(rand.NewPCG(seed, 6))}
		start := time.Unix(1_700_000_000, 0)
		var list []dataplane.Listed
		for range 5 + w.rng.IntN(300) {
			p, err := w.addr().Prefix(16 + w.rng.IntN(17))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, dataplane.Listed{Prefix: p, Reason: w.rng.Uint32N(9), Expires: start.Add(time.Duration(1+w.rng.IntN(100)) * time.Second)})
		}
		table := NewTable(0)
		if err := table.ReplaceBulk(start, list, BulkLimits{}); err != nil {
			t.Fatal(err)
		}
		hits := map[uint32]uint64{}
		for step := range 2000 {
			now := start.Add(time.Duration(step) * 60 * time.Millisecond)
			p := w.packet()
			want := bulkTwin(list, p.Src, now)
			if want == nil {
				want = bulkTwin(list, p.Dst, now)
			}
			v := table.Decide(p, now.UnixNano(), dataplane.Enforce)
			if v.Drop != (want != nil) || want != nil && v.Reason != want.Reason {
				t.Fatalf("seed %d step %d: %s to %s: got %+v, expected %+v", seed, step, p.Src, p.Dst, v, want)
			}
			if want != nil {
				hits[want.Reason]++
			}
		}
		s := table.BulkState(start)
		if fmt.Sprint(s.Hits) != fmt.Sprint(hits) || len(hits) == 0 {
			t.Errorf("seed %d: hits %v, expected %v", seed, s.Hits, hits)
		}
		if end := table.BulkState(start.Add(101 * time.Second)); end.Enforced != 0 || s.Enforced == 0 {
			t.Errorf("seed %d: %d entries at first, %d at the end: expected some, none", seed, s.Enforced, end.Enforced)
		}
	}
}

func TestBulkRefuses(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	later := now.Add(time.Hour)
	entry := func(s string) dataplane.Listed {
		return dataplane.Listed{Prefix: netip.MustParsePrefix(s), Expires: later}
	}
	lengths := make([]dataplane.Listed, 0, MaxBulkLengths+1)
	for bits := range MaxBulkLengths + 1 {
		p, err := netip.MustParseAddr("2001:db8::").Prefix(32 + bits)
		if err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, dataplane.Listed{Prefix: p, Expires: later})
	}
	reasons := make([]dataplane.Listed, MaxBulkReasons+1)
	for i := range reasons {
		reasons[i] = entry("192.0.2.1/32")
		reasons[i].Reason = uint32(i) * 256
	}
	for _, c := range []struct {
		what string
		list []dataplane.Listed
		text string
		full bool
	}{
		{"no prefix", []dataplane.Listed{entry("192.0.2.1/32"), {Expires: later}}, "entry 2 of 2: prefix: is required", false},
		{"no expiry", []dataplane.Listed{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}, "expires: is required", false},
		{"no expiry after one that has", []dataplane.Listed{entry("192.0.2.1/32"), {Prefix: netip.MustParsePrefix("192.0.2.1/32")}}, "expires: is required", false},
		{"host bits", []dataplane.Listed{entry("192.0.2.1/24")}, "expected 192.0.2.0/24", false},
		{"host bits, IPv6", []dataplane.Listed{entry("2001:db8::1/64")}, "expected 2001:db8::/64", false},
		{"host bits low, IPv6", []dataplane.Listed{entry("2001:db8::1/127")}, "expected 2001:db8::/127", false},
		{"too wide", []dataplane.Listed{entry("0.0.0.0/0")}, "too wide", false},
		{"mapped", []dataplane.Listed{entry("::ffff:192.0.2.1/128")}, "expected plain IPv4", false},
		{"many lengths", lengths, "more than 64 different lengths", true},
		{"many reasons", reasons, "more than 1024 different reasons", true},
		{"many entries", make([]dataplane.Listed, 25), "25 entries of at most 24", true},
		{"many addresses", []dataplane.Listed{entry("192.0.2.1/32"), entry("192.0.2.2/32"), entry("192.0.2.3/32"), entry("2001:db8::1/128"), entry("192.0.2.4/32")}, "5 addresses of at most 4", true},
		{"many prefixes", []dataplane.Listed{entry("192.0.2.0/24"), entry("192.0.3.0/24"), entry("2001:db8::/64")}, "3 prefixes of at most 2", true},
	} {
		table := NewTable(0)
		err := table.ReplaceBulk(now, c.list, BulkLimits{Addrs: 4, Nets: 2})
		if c.what == "many lengths" || c.what == "many reasons" {
			err = table.ReplaceBulk(now, c.list, BulkLimits{})
		}
		if err == nil || !strings.Contains(err.Error(), c.text) || errors.Is(err, dataplane.ErrFull) != c.full {
			t.Errorf("%s: %v: expected %q, ErrFull %v", c.what, err, c.text, c.full)
		}
		if s := table.BulkState(now); s.Generation != 0 {
			t.Errorf("%s: a refused set became generation %d", c.what, s.Generation)
		}
	}
}

func TestBulkFarExpiry(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	far := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC) // more nanoseconds than fit
	set, err := NewBulkSet([]dataplane.Listed{
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Expires: far},
		{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Expires: time.Date(2, 1, 1, 0, 0, 0, 0, time.UTC)},
	}, now, BulkLimits{}.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Addrs4) != 1 || set.Addrs4[0].Expires <= now.UnixNano() {
		t.Errorf("%+v: expected the first entry alone, far in the future", set.Addrs4)
	}
}

func BenchmarkBulkSet(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	list := make([]dataplane.Listed, 1_000_000)
	for i := range list {
		u := rng.Uint32()
		a := netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)})
		list[i] = dataplane.Listed{Prefix: netip.PrefixFrom(a, 32), Reason: u & 7, Expires: time.Unix(1_700_000_000, 0)}
	}
	for b.Loop() {
		if _, err := NewBulkSet(list, time.Unix(1_600_000_000, 0), BulkLimits{}.WithDefaults()); err != nil {
			b.Fatal(err)
		}
	}
}
