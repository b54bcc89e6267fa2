package evidence

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, text string) (*Index, *Report) {
	t.Helper()
	var x Index
	rep, err := x.Read("auth.log", strings.NewReader(text), Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return &x, rep
}

// TestLines: what sshd and fail2ban write, in each form that it is kept in.
func TestLines(t *testing.T) {
	at := time.Date(2026, 3, 2, 6, 21, 45, 0, time.UTC)
	for text, want := range map[string]Entry{
		"Mar  2 06:21:45 gate sshd[12]: Failed password for invalid user admin from 203.0.113.9 port 4022 ssh2":                                       {at, netip.MustParseAddr("203.0.113.9"), 4022, Failed},
		"2026-03-02T07:21:45.000000+01:00 gate sshd-session[12]: Invalid user x from 2001:db8::7 port 9":                                              {at, netip.MustParseAddr("2001:db8::7"), 9, Failed},
		"2026-03-02T06:21:45Z gate sshd[1]: error: maximum authentication attempts exceeded for root from 203.0.113.9 port 1 ssh2 [preauth]":          {at, netip.MustParseAddr("203.0.113.9"), 1, Failed},
		"Mar  2 06:21:45 gate sshd[1]: Connection closed by authenticating user root 203.0.113.9 port 77 [preauth]":                                   {at, netip.MustParseAddr("203.0.113.9"), 77, Failed},
		"Mar  2 06:21:45 gate sshd[1]: Accepted publickey for ann from ::ffff:10.0.0.4 port 5 ssh2: ED25519 SHA256:abc":                               {at, netip.MustParseAddr("10.0.0.4"), 5, Accepted},
		`{"__REALTIME_TIMESTAMP":"1772432505000000","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"Failed password for root from 203.0.113.9 port 4022 ssh2"}`: {at, netip.MustParseAddr("203.0.113.9"), 4022, Failed},
		"2026-03-02 06:21:45,000 fail2ban.actions        [812]: NOTICE  [sshd] Ban 203.0.113.9":                                                       {at, netip.MustParseAddr("203.0.113.9"), 0, Banned},
		"Mar  2 06:21:45 gate sshd[1]: Failed password for invalid user x from 10.0.0.1 port 22 ssh2 from 203.0.113.9 port 4022 ssh2":                 {at, netip.MustParseAddr("203.0.113.9"), 4022, Failed}, // a name that reads like a line
		"Mar  2 06:21:45 gate sudo[1]: Failed password for root from 203.0.113.9 port 4022 ssh2":                                                      {},
		`{"SYSLOG_IDENTIFIER":"evil","MESSAGE":"Failed password for root from 203.0.113.9 port 4022 ssh2","__REALTIME_TIMESTAMP":"1"}`:                {},
		`{"SYSLOG_IDENTIFIER":"sshd","MESSAGE":[70,97],"__REALTIME_TIMESTAMP":"1"}`:                                                                   {},
		"Mar  2 06:21:45 gate sshd[1]: Server listening on 0.0.0.0 port 22.":                                                                          {},
	} {
		e, err := parse(text, Options{Now: now, Zone: time.UTC})
		if err != nil || !e.At.Equal(want.At) && want.Kind != 0 || e.Addr != want.Addr || e.Port != want.Port || e.Kind != want.Kind {
			t.Errorf("%s:\ngot %+v (%v), expected %+v", text, e, err, want)
		}
	}
	// A day without a year that has not come yet was last year's.
	if e, err := parse("Dec 31 23:00:00 gate sshd[1]: Invalid user x from 203.0.113.9 port 9", Options{Now: now, Zone: time.UTC}); err != nil || e.At.Year() != 2025 {
		t.Errorf("got %v (%v)", e.At, err)
	}
}

// TestBrokenLines are counted, and the first is named with its line.
func TestBrokenLines(t *testing.T) {
	x, rep := read(t, "Mar  2 06:21:45 gate sshd[1]: Failed password for root from nowhere port 4022 ssh2\n{broken\nsometime sshd[1]: Failed password for root from 203.0.113.9 port 4 ssh2\nMar  2 06:21:45 gate sshd[1]: Failed password for root from 203.0.113.9 port 4 ssh2\n")
	if x.Len() != 1 || rep.Lines != 4 || rep.Refused != 3 || len(rep.Faults) != 3 || rep.Faults[0].Error() != `line 1: field address: found "nowhere": expected an IP address` {
		t.Errorf("%d entries: %+v", x.Len(), rep)
	}
}

// session is a flow from an address and port, d after now.
func session(from string, port uint16, d time.Duration) *flow.Record {
	k, fromB := flow.NewKey(netip.AddrPortFrom(netip.MustParseAddr(from), port), netip.MustParseAddrPort("10.0.0.5:22"), flow.TCP)
	return &flow.Record{Key: k, InitB: fromB, Start: now.Add(d).UnixNano(), Last: now.Add(d + 3*time.Second).UnixNano()}
}

// TestJoin: guessing labels the sessions that guessed and no others; who mistypes
// and is let in, or guesses nothing, is not labelled; a ban labels what led to it.
func TestJoin(t *testing.T) {
	var b strings.Builder
	line := func(d time.Duration, what, from string, port int) {
		fmt.Fprintf(&b, "%s gate sshd[1]: %s for root from %s port %d ssh2\n", now.Add(d).Format(time.RFC3339), what, from, port)
	}
	for i := range 8 {
		line(time.Duration(i)*30*time.Second, "Failed password", "203.0.113.9", 4000+i)
		line(time.Duration(i)*30*time.Second, "Failed password", "203.0.113.10", 4000+i)
	}
	for i := range 2 {
		line(time.Duration(i)*5*time.Second, "Failed password", "10.0.0.4", 5000)
	}
	for i := range 3 {
		line(time.Duration(i)*time.Minute, "Accepted password", "203.0.113.10", 4100+i)
	}
	fmt.Fprintf(&b, "%s,5 fail2ban.actions [1]: NOTICE [sshd] Ban 203.0.113.77\n", now.Add(time.Minute).Format("2006-01-02 15:04:05"))
	x, rep := read(t, b.String())
	if rep.Entries != 22 {
		t.Fatalf("%+v", rep)
	}
	for _, c := range []struct {
		r    *flow.Record
		want string
	}{
		{session("203.0.113.9", 4003, 89*time.Second), "login guessing"},
		{session("203.0.113.9", 4999, 89*time.Second), ""},
		{session("203.0.113.9", 4003, 2*time.Hour), ""},
		{session("203.0.113.10", 4003, 89*time.Second), ""}, // an office behind one address
		{session("10.0.0.4", 5000, 0), ""},
		{session("203.0.113.77", 1, 30*time.Second), "banned address"},
		{session("203.0.113.77", 1, 5*time.Minute), ""},
		{session("192.0.2.1", 1, 0), ""},
	} {
		if family, w := x.Of(c.r); family != c.want || (w > 0) != (c.want != "") {
			t.Errorf("%v at %s: got %q %v, expected %q", c.r.Key, time.Unix(0, c.r.Start).UTC(), family, w, c.want)
		}
	}
	if family, _ := (*Index)(nil).Of(session("10.0.0.4", 1, 0)); family != "" {
		t.Error("no evidence says something")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("Mar  2 06:21:45 gate sshd[1]: Failed password for root from 203.0.113.9 port 4 ssh2\n")
	f.Add(`{"__REALTIME_TIMESTAMP":"1772432505000000","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"Invalid user x from ::1 port 9"}`)
	f.Add("2026-03-02 06:21:45,000 fail2ban.actions [812]: NOTICE [sshd] Ban 203.0.113.9\n")
	f.Fuzz(func(t *testing.T, text string) {
		var x Index
		rep, err := x.Read("fuzz", strings.NewReader(text), Options{Now: now})
		if err == nil && rep.Entries != x.Len() {
			t.Fatalf("%d entries told, %d kept", rep.Entries, x.Len())
		}
		for a, es := range x.by {
			for _, e := range es {
				if !a.IsValid() || a.Is4In6() || a.Zone() != "" || e.At.Year() < 1970 || e.Kind < Failed || e.Kind > Banned {
					t.Fatalf("%v %+v", a, e)
				}
			}
		}
	})
}
