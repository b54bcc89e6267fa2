package wire

import (
	"encoding/base64"
	"regexp"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Kinds of values that are no addresses.
const (
	// TypeDomain is a name in lower case and ASCII without the final dot, as
	// "evil.example". It stands for itself and all names below it.
	TypeDomain Type = "domain"
	// TypeFingerprint is a TLS client's, as JA4: "t13d1516h2_8daaf6152771_b186095e22b6".
	TypeFingerprint Type = "fingerprint"
	// TypeBehaviour is a region of the space of flows under the schema of features
	// that it is meant in, as "features-2:" and its bounds in base64 (RFC 4648,
	// section 5, without padding). What the bytes mean is the learner's to check.
	TypeBehaviour Type = "behaviour"
)

// Limits of such values, in bytes.
const (
	maxAddressValue = 64
	maxDomain       = 253
	maxBehaviour    = 320
)

var (
	label       = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
	fingerprint = regexp.MustCompile(`^[tqd](1[0-3]|s[23]|d[123]|00)[di][0-9]{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$`)
	behaviour   = regexp.MustCompile(`^features-[1-9][0-9]{0,3}:[A-Za-z0-9_-]+$`)
)

// insideNames are the endings under which a name means something else, or nothing,
// at every site (RFC 6761, 6762, 7686, 8375 and common use).
var insideNames = []string{
	"local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "arpa", "onion", "invalid",
}

// named reads a value that is no address.
func named(typ Type, s string) (t Target, err error) {
	t = Target{Type: typ, Name: s}
	switch typ {
	case TypeDomain:
		err = checkDomain(s)
	case TypeFingerprint:
		if !fingerprint.MatchString(s) {
			err = Refuse(BadField, "value: %.40q: expected a JA4 such as t13d1516h2_8daaf6152771_b186095e22b6", s)
		}
	case TypeBehaviour:
		err = checkBehaviour(s)
	}
	if err != nil {
		return Target{}, err
	}
	return t, nil
}

func checkDomain(s string) error {
	labels := strings.Split(s, ".")
	last := labels[len(labels)-1]
	if len(s) > maxDomain || len(labels) < 2 || strings.Trim(last, "0123456789") == "" {
		return Refuse(BadField, "value: %.80q: expected a domain such as evil.example", s)
	}
	for _, l := range labels {
		if !label.MatchString(l) {
			return Refuse(BadField, "value: %.80q: expected a domain in lower case and ASCII, such as evil.example", s)
		}
	}
	for _, inside := range insideNames {
		if last == inside {
			return Refuse(PrivateValue, "value: %.80q: names below %q mean something else at every site and never leave it", s, inside)
		}
	}
	if suffix, _ := publicsuffix.PublicSuffix(s); suffix == s {
		return Refuse(NameTooWide, "value: %.80q: anybody may register below it", s)
	}
	return nil
}

func checkBehaviour(s string) error {
	if len(s) > maxBehaviour || !behaviour.MatchString(s) {
		return Refuse(BadField, "value: %.40q: expected a schema of features and a region, as features-2:AAEC, of at most %d bytes", s, maxBehaviour)
	}
	_, enc, _ := strings.Cut(s, ":")
	if b, err := base64.RawURLEncoding.Strict().DecodeString(enc); err != nil || len(b) == 0 {
		return Refuse(BadField, "value: %.40q: expected a region in unpadded base64", s)
	}
	return nil
}
