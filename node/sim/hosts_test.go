//go:build !race

package sim

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
)

// The counts are those that were made of the logs by other means.
func TestHostsCeilings(t *testing.T) {
	h, err := ReadHosts(t.Context(), realdata.Dir(t, "stratosphere-zeek"))
	if err != nil {
		t.Fatal(err)
	}
	all, contacts, seen := h.Ceilings()
	if contacts != 4708 || seen != 1213 {
		t.Errorf("%d first contacts, %d of sources that were elsewhere before: expected 4708 and 1213", contacts, seen)
	}
	for _, c := range all {
		for k, n := range c.Prevented {
			if n > seen || k > 0 && n < c.Prevented[k-1] || n > all[0].Prevented[k] {
				t.Errorf("%s: %v: more evidence than one packet, or shorter blocks, cannot prevent more", c.Evidence, c.Prevented)
			}
		}
	}
	if all[0].Prevented[2] < 1000 || all[4].Prevented[2] > 10 {
		t.Errorf("%+v", all)
	}
}

// twoHosts are two machines at which one source knocks in turn, at several services
// within a minute, beside ordinary work.
func twoHosts() *Hosts {
	begin := time.Date(2022, 6, 1, 0, 0, 0, 0, time.UTC)
	h := &Hosts{begin: begin, end: begin.Add(5 * time.Minute)}
	bad, good := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.9")
	for i, name := range hostAddrs {
		host := netip.MustParseAddr(name)
		h.sites = append(h.sites, newHostSite(i, host))
		var flows []*recorded
		add := func(from, to netip.Addr, port uint16, at time.Duration, answered bool, v *visit) {
			r := flow.Record{InitInside: from == host, RespInside: to == host, Start: begin.Add(at).UnixNano()}
			r.Key = flow.Key{A: from, B: to, APort: 40000, BPort: port, Proto: flow.TCP}
			r.Last = r.Start + int64(100*time.Millisecond)
			r.Dir[0].Packets = 1
			if answered {
				r.Dir = [2]flow.Dir{{Packets: 5, Payload: 300, FIN: 1}, {Packets: 5, Payload: 900, FIN: 1}}
			}
			flows = append(flows, &recorded{rec: r, visit: v})
		}
		for k := range 20 {
			add(host, good, 443, time.Duration(10*k)*time.Second, true, nil)
			if i < 2 {
				add(bad, host, uint16(1000+k), time.Duration(i)*2*time.Minute+time.Duration(k)*time.Second, false, &visit{site: i})
			}
		}
		h.flows = append(h.flows, flows)
	}
	return h
}

// Without answers for unused services nothing is validated, and nothing is told;
// with them the second host is spared where it trusts the first.
func TestHostsPlay(t *testing.T) {
	h := twoHosts()
	want := map[HostsCell]int{{Organisations: 0, Dark: true}: 0, {Organisations: 1}: 0, {Organisations: 1, Dark: true}: 1}
	for c, prevented := range want {
		r, err := h.Play(t.Context(), c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Sums(); s.Contacts != 2 || s.Seen != 1 || s.Prevented != prevented || s.FalseBlocks != 0 || s.Lost != 0 {
			t.Errorf("%s: %+v: expected %d prevented", c, s, prevented)
		}
		if row := HostsRow(c, r); !strings.Contains(row, c.String()) || strings.Count(row, "|") != strings.Count(HostsHead[:strings.Index(HostsHead, "\n")], "|") {
			t.Errorf("row %q", row)
		}
	}
}
