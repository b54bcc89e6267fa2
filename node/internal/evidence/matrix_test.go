package evidence

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The forms in which a machine says who came, each with a line that is right.
var forms = map[string]string{
	"auth.log":    "Mar  2 06:21:45 gate sshd[1]: Failed password for root from 203.0.113.9 port 4022 ssh2",
	"auth.log 24": "2026-03-02T07:21:45.123+01:00 gate sshd-session[1]: Invalid user x from 203.0.113.9 port 4022",
	"journal":     `{"__REALTIME_TIMESTAMP":"1772432505000000","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"Failed password for root from 203.0.113.9 port 4022 ssh2"}`,
	"fail2ban":    "2026-03-02 06:21:45,000 fail2ban.actions [812]: NOTICE [sshd] Ban 203.0.113.9",
}

// badLines are what is wrong with a line: in each form what is replaced, and the field
// that is named.
var badLines = []struct{ form, what, old, by, field string }{
	{"auth.log", "no time", "Mar  2 06:21:45", "sometime", "time"},
	{"auth.log", "no such day", "Mar  2", "Mar 45", "time"},
	{"auth.log", "no such hour", "06:21:45", "26:21:45", "time"},
	{"auth.log", "address", "203.0.113.9", "203.0.113.999", "address"},
	{"auth.log", "a name for an address", "203.0.113.9", "gate.example.org", "address"},
	{"auth.log", "port beyond", "4022", "65536", "port"},
	{"auth.log", "port of many digits", "4022", "402200", "address"},
	{"auth.log", "negative port", "4022", "-1", "address"},
	{"auth.log", "no port", " port 4022", "", "address"},
	{"auth.log 24", "year 9999", "2026-", "9999-", "time"},
	{"auth.log 24", "year 1969", "2026-", "1969-", "time"},
	{"auth.log 24", "no such zone", "+01:00", "+99:00", "time"},
	{"auth.log 24", "address", "203.0.113.9", "203.0.113.", "address"},
	{"auth.log 24", "port NaN", "4022", "NaN", "address"},
	{"journal", "half an object", `"}`, "", ""},
	{"journal", "time is a number", `"1772432505000000"`, "1772432505000000", "__REALTIME_TIMESTAMP"},
	{"journal", "time in words", "1772432505000000", "yesterday", "__REALTIME_TIMESTAMP"},
	{"journal", "negative time", "1772432505000000", "-5", "__REALTIME_TIMESTAMP"},
	{"journal", "time overflows", "1772432505000000", "99999999999999999999", "__REALTIME_TIMESTAMP"},
	{"journal", "no time", `"__REALTIME_TIMESTAMP":"1772432505000000",`, "", "__REALTIME_TIMESTAMP"},
	{"journal", "address", "203.0.113.9", "::g", "address"},
	{"journal", "port", "4022", "99999", "port"},
	{"fail2ban", "address", "203.0.113.9", "203.0.113", "address"},
	{"fail2ban", "no time", "2026-03-02 06:21:45,000 ", "", "time"},
	{"fail2ban", "no such month", "2026-03-02", "2026-13-02", "time"},
}

// TestEveryFormNamesBadLines: whatever says it, a bad line between two that are right
// is named with its line and field, and the two are used.
func TestEveryFormNamesBadLines(t *testing.T) {
	for _, c := range badLines {
		t.Run(c.form+"/"+c.what, func(t *testing.T) {
			good := forms[c.form] + "\n"
			bad := strings.Replace(good, c.old, c.by, 1)
			if bad == good {
				t.Fatal("nothing was replaced")
			}
			x, rep := read(t, good+bad+good)
			if x.Len() != 2 || rep.Refused != 1 || len(rep.Faults) != 1 {
				t.Fatalf("%q: %d entries: %+v", bad, x.Len(), rep)
			}
			if f := rep.Faults[0]; f.Line != 2 || f.Field != c.field || f.Wanted == "" {
				t.Errorf("%q: %v (field %q): expected field %q of line 2", bad, &f, f.Field, c.field)
			}
		})
	}
}

// TestEveryFormToldOfAHalfLine: an address or a port that is cut off is another's. What
// ends a log without a line end is refused unless it is surely whole.
func TestEveryFormToldOfAHalfLine(t *testing.T) {
	for name, line := range forms {
		whole := name == "journal" // a closed object
		for cut := range line {
			x, rep := read(t, line+"\n"+line[:len(line)-cut])
			if want := 1; cut == 0 && whole {
				want = 2
				if x.Len() != want || rep.Refused != 0 {
					t.Errorf("%s: %+v", name, rep)
				}
			} else if x.Len() != want {
				t.Fatalf("%s: %q was taken for a line", name, line[:len(line)-cut])
			}
		}
	}
}

// TestMixedZonesAreOneTime: a log of machines that write their zone, of ones that write
// none, and of ones that write no year is brought to one clock.
func TestMixedZonesAreOneTime(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	var x Index
	text := "2026-03-02T07:21:45+01:00 a sshd[1]: Invalid user x from 203.0.113.9 port 1\n" +
		"2026-03-02T01:21:45-05:00 b sshd[1]: Invalid user x from 203.0.113.9 port 2\n" +
		"Mar  2 08:21:45 c sshd[1]: Invalid user x from 203.0.113.9 port 3\n" +
		"2026-03-02 08:21:45,000 fail2ban.actions [812]: NOTICE [sshd] Ban 203.0.113.9\n"
	rep, err := x.Read("auth.log", strings.NewReader(text), Options{Now: now, Zone: zone})
	if err != nil || rep.Entries != 4 {
		t.Fatal(rep, err)
	}
	for _, e := range x.by[netip.MustParseAddr("203.0.113.9")] {
		if want := time.Date(2026, 3, 2, 6, 21, 45, 0, time.UTC); !e.At.Equal(want) {
			t.Errorf("port %d: %s, expected %s", e.Port, e.At.UTC(), want)
		}
	}
}

// TestEvidenceIsBounded: of a line without an end, an archive that was cut and more
// logins than are kept, what is right is used and the rest is told.
func TestEvidenceIsBounded(t *testing.T) {
	good := forms["auth.log"] + "\n"
	x, rep := read(t, good+strings.Repeat("x", maxLine+1)+"\n"+good)
	if x.Len() != 2 || rep.Refused != 1 || rep.Faults[0].Line != 2 {
		t.Errorf("a long line: %+v", rep)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for i := range 3000 {
		if _, err := fmt.Fprintf(z, "Mar  2 06:21:45 gate sshd[1]: Invalid user x from 10.%d.%d.%d port 1\n", i>>16, i>>8&255, i&255); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if x, rep = read(t, b.String()); x.Len() != 3000 || len(x.by) != 3000 || rep.Refused != 0 {
		t.Errorf("many hosts: %+v", rep)
	}
	if x, rep = read(t, b.String()[:b.Len()-12]); x.Len() == 0 || !strings.Contains(rep.Cut, "cut off") {
		t.Errorf("a cut archive: %d entries, %+v", x.Len(), rep)
	}
	x = &Index{n: maxEntries - 1}
	rep, err := x.Read("auth.log", strings.NewReader(strings.Repeat(good, 30)), Options{Now: now})
	if err != nil || x.Len() != maxEntries || rep.Refused != 29 || len(rep.Faults) != maxTold || rep.Faults[0].Line != 2 {
		t.Errorf("more than are kept: %+v, %v", rep, err)
	}
}
