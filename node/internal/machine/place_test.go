package machine

import (
	"strings"
	"testing"
)

func placeView() *View {
	port := link("lan0")
	port.Addrs, port.Bridge, port.Kind = nil, "br0", "veth"
	br := link("br0", "10.1.0.1/24")
	br.Kind = "bridge"
	tun := link("tun0", "10.9.0.1/24")
	tun.Ethernet, tun.Raw = false, true
	odd := link("ib0", "10.8.0.1/24")
	odd.Ethernet = false
	return &View{Links: []Link{port, br, link("wan0", "192.0.2.10/24"), tun, odd, link("span0", "10.2.0.1/24")},
		Routes: []Route{{Interface: "wan0"}}}
}

func TestPlaces(t *testing.T) {
	v := placeView()
	for name, c := range map[string]struct {
		named []Place
		want  string // of the error; "" for none
	}{
		"a bridge's port and the outside": {[]Place{{"lan0", "bridge"}, {"wan0", "outside"}}, ""},
		"a tunnel":                        {[]Place{{"tun0", "inside"}}, ""},
		"no port of a bridge":             {[]Place{{"br0", "bridge"}}, "is not a port of a bridge"},
		"only the outside, many inside":   {[]Place{{"wan0", "outside"}}, "all look like it"},
		"a missing one":                   {[]Place{{"lan0", "bridge"}, {"nope0", "outside"}}, "interface nope0: not found"},
		"a foreign kind of link":          {[]Place{{"ib0", "inside"}}, "begin neither with Ethernet nor with IP"},
	} {
		list, err := v.Places(c.named)
		switch {
		case c.want == "" && (err != nil || len(list) != len(c.named)):
			t.Errorf("%s: %v, %v", name, list, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// With only the outside named, the inside is found.
func TestInsideIsFoundBesideTheOutside(t *testing.T) {
	wan, lan := link("wan0", "192.0.2.10/24"), link("lan0", "10.1.0.1/24")
	v := &View{Links: []Link{lan, wan}, Routes: []Route{{Interface: "wan0"}}}
	list, err := v.Places([]Place{{"wan0", "outside"}})
	if err != nil || len(list) != 2 || list[0].Interface != "lan0" || list[0].Role != "inside" || list[1].Interface != "wan0" {
		t.Errorf("places %+v, %v", list, err)
	}
	v = &View{Links: []Link{wan}, Routes: []Route{{Interface: "wan0"}}}
	if _, err := v.Places([]Place{{"wan0", "outside"}}); err == nil || !strings.Contains(err.Error(), "only the outside is named") {
		t.Errorf("on a machine with one interface: %v", err)
	}
}

func TestMisplacedInterfacesAreSaid(t *testing.T) {
	v := placeView()
	for p, want := range map[Place]string{
		{"wan0", "inside"}:   "default route leaves by wan0",
		{"lan0", "inside"}:   "a port of br0",
		{"br0", "inside"}:    "between its ports",
		{"span0", "outside"}: "check that this is the outside",
		{"wan0", "sensor"}:   "no mirrored port",
		{"wan0", "outside"}:  "",
		{"span0", "sensor"}:  "",
		{"lan0", "bridge"}:   "",
	} {
		fs := v.checkAlso([]Place{p})
		if len(fs) != 1 || !strings.Contains(fs[0].Advice, want) || (fs[0].State == OK) != (want == "") {
			t.Errorf("%v: %+v, want advice %q", p, fs, want)
		}
	}
}
