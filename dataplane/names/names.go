// Package names knows domains and DNS answers, and nothing else: it is pure.
//
// Normalise brings a domain into the one form in which it is compared, and
// refuses what would be far too much to block. Parse takes from a DNS message
// (RFC 1035) what it says of addresses: for which name, by way of which aliases,
// and for how long. A message comes from a stranger: all that it can make Parse
// do is bounded, and whatever is odd about it makes the answer shorter, never
// longer. Set is a set of domains that finds the one which covers a name.
package names

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// MaxLength is how long a domain may be, in the form of Normalise.
const MaxLength = 253

// Normalise returns a domain in lower case, in ASCII (internationalised labels
// as xn--, by IDNA 2008 as browsers look names up), without the final dot. It
// refuses addresses, single labels, and names under which anybody may register,
// such as co.uk.
func Normalise(s string) (string, error) {
	bad := func(why string) error {
		return fmt.Errorf("domain %q: %s: expected one such as evil.example", s, why)
	}
	if len(s) > 4*MaxLength {
		return "", errors.New("domain: is too long: expected at most 253 bytes")
	}
	d, err := idna.Lookup.ToASCII(strings.TrimSuffix(strings.TrimSpace(s), "."))
	if err != nil {
		return "", bad("is not a domain name")
	}
	d = strings.ToLower(d)
	// What is not valid text becomes a name that cannot be read back.
	if again, err := idna.Lookup.ToASCII(d); err != nil || again != d || !wellFormed(d) {
		return "", bad("is not a domain name")
	}
	if suffix, _ := publicsuffix.PublicSuffix(d); suffix == d {
		return "", bad("is one under which anybody may register")
	}
	return d, nil
}

// wellFormed checks the letters and lengths of a name in ASCII. A last label of
// digits is that of an address.
func wellFormed(d string) bool {
	labels := strings.Split(d, ".")
	if len(d) > MaxLength || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// Set is a set of normalised domains. The zero value is empty.
type Set struct{ all map[string]bool }

// Add puts a normalised domain into the set.
func (s *Set) Add(domain string) {
	if s.all == nil {
		s.all = map[string]bool{}
	}
	s.all[domain] = true
}

// Remove takes a domain out.
func (s *Set) Remove(domain string) { delete(s.all, domain) }

// Len is how many domains there are.
func (s *Set) Len() int { return len(s.all) }

// Covers returns the domain of the set that is name or one of its parents, the
// longest there is. name is in the form of Normalise.
func (s *Set) Covers(name string) (domain string, ok bool) {
	for d := name; len(s.all) > 0; {
		if s.all[d] {
			return d, true
		}
		_, parent, more := strings.Cut(d, ".")
		if !more {
			break
		}
		d = parent
	}
	return "", false
}
