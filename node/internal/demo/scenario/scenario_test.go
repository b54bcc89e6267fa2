package scenario

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestSeedDecidesEverything(t *testing.T) {
	draw := func(seed uint64) (*Scenario, []Timed) {
		s := New(seed)
		var all []Timed
		for _, site := range s.Sites {
			src := s.Ordinary(site, 25)
			for range 200 {
				all = append(all, src.Next())
			}
			all = append(all, s.ScanOf(site)...)
			all = append(all, s.BruteOf(site)...)
			all = append(all, s.BeaconOf(site, site.Hosts[0].Addr, s.C2[0])...)
			all = append(all, s.SpurtOf(site, site.Hosts[1].Addr)...)
		}
		return s, all
	}
	s1, a1 := draw(7)
	s2, a2 := draw(7)
	if !reflect.DeepEqual(s1, s2) || !reflect.DeepEqual(a1, a2) {
		t.Error("two draws of one seed differ")
	}
	s3, a3 := draw(8)
	if reflect.DeepEqual(s1.Hostile(), s3.Hostile()) || reflect.DeepEqual(a1, a3) {
		t.Error("another seed gave the same world")
	}
}

func TestAddressesAreDistinctAndInTheirRanges(t *testing.T) {
	public := []netip.Prefix{
		netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("198.51.100.0/24"),
	}
	for seed := range uint64(200) {
		s := New(seed)
		seen := map[netip.Addr]bool{}
		once := func(a netip.Addr) {
			if seen[a] {
				t.Fatalf("seed %d: %s stands for two things", seed, a)
			}
			seen[a] = true
		}
		for _, a := range s.Outside() {
			once(a)
			in := false
			for _, p := range public {
				in = in || p.Contains(a)
			}
			if !in {
				t.Errorf("seed %d: outside address %s is in no documentation range", seed, a)
			}
		}
		for _, site := range s.Sites {
			once(site.Gateway)
			once(site.WAN)
			once(site.Server.Addr)
			for _, h := range site.Hosts {
				once(h.Addr)
				if !site.LAN.Contains(h.Addr) || !h.Addr.IsPrivate() {
					t.Errorf("seed %d: host %s is not in %s", seed, h.Addr, site.LAN)
				}
			}
		}
		if s.SpurtPort < 8443 || s.SpurtPort > 9443 {
			t.Errorf("seed %d: spurt port %d", seed, s.SpurtPort)
		}
	}
}

// Every session must be one that its executor can run: the right side starts
// it, something listens (or is said not to), and it ends within its patience.
func TestOrdinaryWorkCanRun(t *testing.T) {
	s := New(3)
	type place struct {
		addr netip.Addr
		port uint16
	}
	listens := map[place]Kind{}
	for _, v := range s.Services() {
		listens[place{v.Addr, v.Port}] = v.Kind
	}
	hostile := map[netip.Addr]bool{}
	for _, a := range s.Hostile() {
		hostile[a] = true
	}
	for _, site := range s.Sites {
		src := s.Ordinary(site, 25)
		var total time.Duration
		kinds := map[Kind]int{}
		const n = 3000
		for range n {
			x := src.Next()
			total += x.After
			kinds[x.Kind]++
			if x.After < 0 || x.Attack != "" || hostile[x.From] || hostile[x.To] {
				t.Fatalf("%s: not ordinary: %+v", site.Name, x)
			}
			inside, outside := x.From, x.To
			if x.Inbound {
				inside, outside = x.To, x.From
			}
			if !site.LAN.Contains(inside) || site.LAN.Contains(outside) {
				t.Fatalf("%s: inbound=%v but from %s to %s", site.Name, x.Inbound, x.From, x.To)
			}
			k, ok := listens[place{x.To, x.Port}]
			if !ok {
				k, ok = listens[place{netip.Addr{}, x.Port}]
			}
			if !ok || k != x.Kind {
				t.Fatalf("%s: nothing speaks %s at %s:%d", site.Name, x.Kind, x.To, x.Port)
			}
			var think time.Duration
			for _, e := range x.Script {
				think += e.Think
				if e.Up < 28 || e.Down < 28 {
					t.Fatalf("%s: %s: exchange %+v is too small to say what it wants", site.Name, x.Kind, e)
				}
			}
			if think > x.Timeout/2 {
				t.Fatalf("%s: thinks for %v of %v", site.Name, think, x.Timeout)
			}
		}
		rate := n / total.Seconds()
		if rate < 22 || rate > 34 {
			t.Errorf("%s: %.1f sessions a second, expected about 25 to 30", site.Name, rate)
		}
		for _, k := range []Kind{DNS, HTTP, TLS, SSH, Bulk} {
			if kinds[k] == 0 {
				t.Errorf("%s: no %s in %d sessions", site.Name, k, n)
			}
		}
	}
}

func TestAttacksAreWhatTheySay(t *testing.T) {
	for seed := range uint64(50) {
		s := New(seed)
		alder, cedar := s.Site(Alder), s.Site(Cedar)
		open := 0
		for i, p := range s.ScanOf(alder) {
			if p.From != s.Scanner || p.To != alder.Server.Addr || p.Kind != Probe {
				t.Fatalf("scan: %+v", p)
			}
			if !p.Closed {
				open++
				if i < 20 {
					t.Errorf("seed %d: the scan meets an open port at probe %d", seed, i)
				}
			}
		}
		if open != 3+returns {
			t.Errorf("seed %d: the scan meets %d open ports, expected %d", seed, open, 3+returns)
		}
		if got := len(s.ScanOf(cedar)); got != len(cedar.Forwarded())+returns {
			t.Errorf("scan of the masquerading site has %d probes", got)
		}
		for _, p := range s.BruteOf(alder) {
			for _, guess := range p.Passwords {
				if guess == s.Password {
					t.Fatal("brute force knows the password")
				}
			}
		}
		var up int
		for _, p := range s.SpurtOf(alder, alder.Hosts[0].Addr) {
			u, _ := p.Bytes()
			up += u
		}
		if up < 10<<20 {
			t.Errorf("seed %d: spurt of %d bytes only", seed, up)
		}
		for _, p := range s.BeaconOf(cedar, cedar.Hosts[0].Addr, s.C2[1]) {
			if u, d := p.Bytes(); u < 16_000 || u > 96_000 || d > 200 {
				t.Errorf("seed %d: beacon of %d up, %d down", seed, u, d)
			}
		}
	}
}
