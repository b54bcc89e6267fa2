package feed

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// sound checks what must hold of every list, however it came about.
func sound(t *testing.T, b []byte, o Options) {
	notes := 0
	l, err := Read(bytes.NewReader(b), o, func(n Note) {
		notes++
		if len(n.Value) > 4*maxValue || n.Kind == "" {
			t.Fatalf("note %+v", n)
		}
	})
	if err != nil {
		if l != nil {
			t.Fatal("an error and a list")
		}
		return
	}
	told := 0
	for _, n := range l.Counts {
		told += n
	}
	if told != notes {
		t.Fatalf("%d counted, %d told", told, notes)
	}
	var before netip.Prefix
	l.Each(func(p netip.Prefix, line int, _ time.Time) {
		switch {
		case !p.IsValid(), p != p.Masked(), p.Addr().Is4In6():
			t.Fatalf("%v is no network", p)
		case p.Addr().Is4() && p.Bits() < MinBits4, p.Addr().Is6() && p.Bits() < MinBits6:
			t.Fatalf("%v is too wide", p)
		case p == before:
			t.Fatalf("%v twice", p)
		case line < 1:
			t.Fatalf("%v stands on line %d", p, line)
		}
		before = p
	})
	var g Guard
	g.ProtectSpecial()
	g.Seal()
	s, err := Build(t0, []Source{{"fuzz", l, t0.Add(time.Hour)}}, &g, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Each(func(e Entry) {
		if kind, name, _, bad := g.Why(e.Prefix.Addr()); bad {
			t.Fatalf("%v is listed although %s (%s)", e.Prefix, kind, name)
		}
	})
	inOrderAndTight(t, s)
}

func seeds(f *testing.F, texts ...string) {
	for _, s := range texts {
		f.Add([]byte(s))
	}
	f.Add([]byte(packed(f, "45.9.148.7\n")))
}

func FuzzAuto(f *testing.F) {
	seeds(f, "45.9.148.7 # x\n45.9.148.0-45.9.149.0\n2a00::/32\n0.0.0.0/0\n10.0.0.0/7\n", "a,b\n45.9.148.7,1\n", bundle1, `{"list":["45.9.148.7"]}`, "create a hash:ip\nadd a 1.1.1.1\n")
	f.Fuzz(func(t *testing.T, b []byte) { sound(t, b, Options{MaxBytes: 1 << 20, MaxEntries: 5000}) })
}

func FuzzPlain(f *testing.F) {
	seeds(f, "45.9.148.7 3 # x\n45.9.148.0 - 45.9.149.0\n::ffff:1.2.3.4\n001.002.003.004\n1.2.3.0/255.255.255.0\n[2a00::1]:80\n")
	f.Fuzz(func(t *testing.T, b []byte) { sound(t, b, Options{Format: Plain, MaxEntries: 5000}) })
}

func FuzzCSV(f *testing.F) {
	seeds(f, "# a,b\n\"x\"\"y\",45.9.148.7\n", "ip;score\n45.9.148.7;3\n")
	f.Fuzz(func(t *testing.T, b []byte) {
		sound(t, b, Options{Format: CSV, MaxEntries: 5000})
		sound(t, b, Options{Format: CSV, Column: "2", MinScore: 1, ScoreColumn: "score", MaxEntries: 5000})
	})
}

func FuzzIpset(f *testing.F) {
	seeds(f, "create n hash:ip netmask 24\nadd n 45.9.148.0\nadd n 45.9.0.0/16 nomatch\nadd n 1.1.1.1,tcp:80 timeout 3\n-A n 2.2.2.2\n")
	f.Fuzz(func(t *testing.T, b []byte) { sound(t, b, Options{Format: Ipset, MaxEntries: 5000}) })
}

func FuzzSTIX(f *testing.F) {
	seeds(f, bundle1, `[{"type":"indicator","id":"a","pattern":"[ipv4-addr:value='1.1.1.1'] OR [x:y NOT IN ('a','b')]"}]`)
	f.Fuzz(func(t *testing.T, b []byte) { sound(t, b, Options{Format: STIX, Now: t0, MaxEntries: 5000}) })
}

func FuzzMISP(f *testing.F) {
	seeds(f, `{"list":["45.9.148.0/24","x.example.org",1,null],"name":"n"}`)
	f.Fuzz(func(t *testing.T, b []byte) { sound(t, b, Options{Format: MISP, MaxEntries: 5000}) })
}

func FuzzPattern(f *testing.F) {
	f.Add("[ipv4-addr:value = '1.2.3.4' OR (a:b IN ('x') AND NOT c:d LIKE 'y')] FOLLOWEDBY ([e:f.'g'[*].h = 1]) WITHIN 3 SECONDS")
	f.Fuzz(func(t *testing.T, s string) {
		terms, err := parsePattern(s)
		if err == nil && len(terms) == 0 {
			t.Fatal("a pattern of nothing")
		}
	})
}
