// Package stix writes shared indicators as a STIX 2.1 bundle (OASIS Standard,
// 10 June 2021), for tools that read nothing else. It is pure. Reading such bundles is
// the business of package feed.
//
// Each indicator carries its author as an identity and its mark as the marking
// definition of TLP 2.0, so that who passes it on knows how far it may go. Ids are
// made from what they name: a bundle that is read twice brings nothing twice.
package stix

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Indicator is what one author says of an address, a service or a domain.
type Indicator struct {
	ID       string // of the mesh, by which ids of the bundle are made
	Type     string // address, service, domain; "" is told by the value
	Value    string // "203.0.113.9", "203.0.113.0/24", "203.0.113.9 tcp/443" or "evil.example"
	Author   string
	Sentence string
	Conf     float64 // 0 to 1
	TLP      string  // clear, green, amber or amber+strict
	First    time.Time
	Last     time.Time
	Expires  time.Time
}

type bundle struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Objects []any  `json:"objects"`
}

type common struct {
	Type    string `json:"type"`
	Spec    string `json:"spec_version"`
	ID      string `json:"id"`
	Created string `json:"created"`
}

type identity struct {
	common
	Modified string `json:"modified"`
	Name     string `json:"name"`
	Class    string `json:"identity_class"`
}

type indicator struct {
	common
	Modified    string   `json:"modified"`
	By          string   `json:"created_by_ref"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Types       []string `json:"indicator_types"`
	Pattern     string   `json:"pattern"`
	PatternType string   `json:"pattern_type"`
	From        string   `json:"valid_from"`
	Until       string   `json:"valid_until"`
	Confidence  int      `json:"confidence"`
	Markings    []string `json:"object_marking_refs"`
}

type marking struct {
	common
	Name       string               `json:"name"`
	Extensions map[string]extension `json:"extensions"`
}

type extension struct {
	Type string `json:"extension_type"`
	TLP  string `json:"tlp_2_0"`
}

// The marking definitions of TLP 2.0 and the extension that they are of, as OASIS
// published them.
const tlpExtension = "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d"

var tlpIDs = map[string]string{
	"clear":        "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487",
	"green":        "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb",
	"amber":        "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421",
	"amber+strict": "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003",
}

// Bundle writes indicators. The same list gives the same bytes.
func Bundle(list []Indicator) ([]byte, error) {
	objects, err := Objects(list)
	if err != nil {
		return nil, err
	}
	b := bundle{Type: "bundle", Objects: []any{}}
	var all strings.Builder
	for _, o := range objects {
		b.Objects = append(b.Objects, o.JSON)
		if o.Type == "indicator" {
			all.WriteString(o.ID + o.Version)
		}
	}
	b.ID = id("bundle", all.String())
	return json.MarshalIndent(b, "", "  ")
}

// Object is one of a bundle.
type Object struct {
	ID, Type string
	Version  string // when it was modified last
	JSON     json.RawMessage
}

// Expressible says whether STIX has a pattern for an indicator: what is a client's
// fingerprint or a behaviour, it cannot say.
func Expressible(x Indicator) bool {
	return x.Type != "fingerprint" && x.Type != "behaviour"
}

// Objects are the indicators with their authors and marks, each once, what is
// referred to before what refers to it.
func Objects(list []Indicator) (out []Object, err error) {
	known := make(map[string]bool)
	add := func(c common, version string, object any) {
		if err != nil || known[c.ID] {
			return
		}
		known[c.ID] = true
		var b []byte
		b, err = json.Marshal(object)
		out = append(out, Object{c.ID, c.Type, version, b})
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Indicator) int { return strings.Compare(a.ID, b.ID) })
	for _, x := range list {
		m, err := markingOf(x.TLP)
		if err != nil {
			return nil, fmt.Errorf("stix: %s: %w", x.Value, err)
		}
		by := authorOf(x)
		ind, err := indicatorOf(x, by.ID, m.ID)
		if err != nil {
			return nil, fmt.Errorf("stix: %s: %w", x.Value, err)
		}
		add(m.common, m.Created, m)
		add(by.common, by.Modified, by)
		add(ind.common, ind.Modified, ind)
	}
	return out, err
}

func markingOf(tlp string) (marking, error) {
	id, ok := tlpIDs[tlp]
	if !ok {
		return marking{}, fmt.Errorf("tlp %q: expected clear, green, amber or amber+strict", tlp)
	}
	return marking{
		common: common{"marking-definition", "2.1", id, "2022-10-01T00:00:00.000Z"}, Name: "TLP:" + strings.ToUpper(tlp),
		Extensions: map[string]extension{tlpExtension: {"property-extension", tlp}},
	}, nil
}

// authorOf is the author's identity. Its date is fixed: when the author began is not known.
func authorOf(x Indicator) identity {
	const since = "2026-01-01T00:00:00.000Z"
	return identity{
		common:   common{"identity", "2.1", id("identity", x.Author), since},
		Modified: since, Name: x.Author, Class: "system",
	}
}

func indicatorOf(x Indicator, by, mark string) (indicator, error) {
	pattern, err := patternOf(x)
	if err != nil {
		return indicator{}, err
	}
	until := x.Expires
	if !until.After(x.First) {
		return indicator{}, fmt.Errorf("it expires at %s, before it begins", stamp(until))
	}
	modified := x.Last
	if modified.Before(x.First) {
		modified = x.First
	}
	return indicator{
		common:   common{"indicator", "2.1", id("indicator", x.ID), stamp(x.First)},
		Modified: stamp(modified), By: by, Name: x.Value, Description: x.Sentence,
		Types: []string{"malicious-activity"}, Pattern: pattern, PatternType: "stix",
		From: stamp(x.First), Until: stamp(until),
		Confidence: int(math.Round(100 * min(max(x.Conf, 0), 1))), Markings: []string{mark},
	}, nil
}

// patternOf is a value in STIX patterning.
func patternOf(x Indicator) (string, error) {
	if x.Type == "domain" {
		if strings.Trim(x.Value, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || !strings.Contains(x.Value, ".") {
			return "", fmt.Errorf("expected a domain")
		}
		return fmt.Sprintf("[domain-name:value = '%s']", x.Value), nil
	}
	value := x.Value
	addr, service, isService := strings.Cut(value, " ")
	p, err := netip.ParsePrefix(addr)
	if err != nil {
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return "", fmt.Errorf("expected an address, a network or a service")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	kind := "ipv6-addr"
	if p.Addr().Is4() {
		kind = "ipv4-addr"
	}
	if !isService {
		return fmt.Sprintf("[%s:value = '%s']", kind, addr), nil
	}
	proto, port, ok := strings.Cut(service, "/")
	if !ok || (proto != "tcp" && proto != "udp") || strings.Trim(port, "0123456789") != "" || port == "" {
		return "", fmt.Errorf("service %q: expected one such as tcp/443", service)
	}
	return fmt.Sprintf("[network-traffic:dst_ref.type = '%s' AND network-traffic:dst_ref.value = '%s' AND network-traffic:dst_port = %s AND network-traffic:protocols[*] = '%s']",
		kind, addr, port, proto), nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// id is an identifier of version 4's form, made of what it names instead of chance.
func id(kind, name string) string {
	h := sha256.Sum256([]byte("hedgerow/stix/1\x00" + kind + "\x00" + name))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80
	return fmt.Sprintf("%s--%x-%x-%x-%x-%x", kind, h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
