package feed

import (
	"maps"
	"slices"
	"strings"
)

// Limits of width: nothing wider is ever taken from a feed.
const (
	MinBits4 = 8
	MinBits6 = 16
)

// Kind says what became of a line, or of an entry of it, that was not simply
// taken.
type Kind string

// Kinds of lines that are skipped: they are well-formed, and no address to block.
const (
	Name       Kind = "name"        // a host name or a URL
	Service    Kind = "service"     // an address with a port: the set knows only addresses
	BelowScore Kind = "below-score" // its score is lower than the feed's min_score
	NoScore    Kind = "no-score"    // min_score is set, and the line has no number there
	Header     Kind = "header"      // names of columns
	Revoked    Kind = "revoked"     // STIX: withdrawn by its author
	Outdated   Kind = "outdated"    // STIX: valid_until has passed; ipset: none
	NotYet     Kind = "not-yet"     // STIX: valid_from is to come
	Superseded Kind = "superseded"  // STIX: a newer version of the object is in the bundle
	Compound   Kind = "compound"    // STIX: the address alone does not fulfil the pattern
	Other      Kind = "other"       // STIX: a pattern of something else, or in another language
	Exception  Kind = "exception"   // ipset nomatch: taken out of what surrounds it
	Duplicate  Kind = "duplicate"   // listed before, in the same list
)

// Kinds of lines that are refused.
const (
	Malformed Kind = "malformed" // none of the forms that are known
	TooWide   Kind = "too-wide"  // wider than /8, for IPv6 /16
	Special   Kind = "special"   // private, loopback, multicast, documentation and the like
	Own       Kind = "own"       // this machine, its networks, the mesh
	Never     Kind = "never"     // on the never-block list
	Warned    Kind = "warned"    // on a warning list
)

// Kinds of lines that are taken, and not as they stand.
const (
	HostBits Kind = "host-bits" // bits behind the prefix were set: taken as the network
	Mapped   Kind = "mapped"    // IPv4-mapped IPv6: taken as IPv4
	Padded   Kind = "padded"    // octets padded with zeros to three digits: read as decimal
	Netmask  Kind = "netmask"   // mask written as an address
	Split    Kind = "split"     // covers protected networks: taken without them
)

// Class is what a Kind means for the entry.
type Class string

// Classes.
const (
	Skipped Class = "skipped"
	Refused Class = "refused"
	Mended  Class = "mended"
)

func classes() map[Class][]Kind {
	return map[Class][]Kind{
		Skipped: {Name, Service, BelowScore, NoScore, Header, Revoked, Outdated, NotYet, Superseded, Compound, Other, Exception, Duplicate},
		Refused: {Malformed, TooWide, Special, Own, Never, Warned},
		Mended:  {HostBits, Mapped, Padded, Netmask, Split},
	}
}

// ClassOf returns the class of a kind.
func ClassOf(k Kind) Class {
	for c, ks := range classes() {
		if slices.Contains(ks, k) {
			return c
		}
	}
	return Refused
}

// Counts are how many lines became what.
type Counts map[Kind]int

// Of is the number of lines of a class.
func (c Counts) Of(class Class) int {
	n := 0
	for _, k := range classes()[class] {
		n += c[k]
	}
	return n
}

// Add adds d.
func (c Counts) Add(d Counts) {
	for k, n := range d {
		c[k] += n
	}
}

// Kinds are those that occurred, in alphabetical order.
func (c Counts) Kinds() []Kind { return slices.Sorted(maps.Keys(c)) }

// Note is one line that was not simply taken.
type Note struct {
	Line   int    `json:"line"`  // from 1; 0 when the whole file is meant
	Value  string `json:"value"` // as it stands there, cut to 80 bytes, without control characters
	Kind   Kind   `json:"kind"`
	Detail string `json:"detail,omitempty"` // which warning list, taken as what, why not
}

const maxValue = 80

// printable cuts what came from outside to what may stand in a terminal.
func printable(s string) string {
	if len(s) > maxValue {
		s = s[:maxValue-3] + "..."
	}
	if plainText(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}

func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
