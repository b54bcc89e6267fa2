package names

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What one message may make us do.
const (
	maxRecords = 128
	maxChain   = 16 // names: the question's and its aliases
	// MaxAddrs is how many addresses are taken of one answer.
	MaxAddrs = 32
)

// ErrNoAnswer says that a message answers no question after addresses.
var ErrNoAnswer = errors.New("no answer with addresses")

// Answer is what a DNS message says of addresses.
type Answer struct {
	Names []string // the question's name, then its aliases, in lower case
	Addrs []netip.Addr
	TTL   time.Duration // the shortest of the records that were used
}

// Parse reads a successful answer to one question of the class IN. Aliases are
// followed in the message alone; records that do not hang together with the
// question are left out. What stands behind a cut is missing, and no error. The
// error wraps ErrNoAnswer when the message is sound and says nothing of use.
func Parse(msg []byte) (Answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return Answer{}, fmt.Errorf("dns message: header: %v", err)
	}
	if !h.Response || h.OpCode != 0 || h.RCode != dnsmessage.RCodeSuccess {
		return Answer{}, fmt.Errorf("dns message: %w", ErrNoAnswer)
	}
	q, err := p.Question()
	if err != nil {
		return Answer{}, fmt.Errorf("dns message: question: %v", err)
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return Answer{}, errors.New("dns message: more than one question")
	}
	if q.Class != dnsmessage.ClassINET {
		return Answer{}, fmt.Errorf("dns message: %w", ErrNoAnswer)
	}
	rs := records(&p)
	a := Answer{Names: []string{lower(q.Name)}, TTL: time.Duration(1<<63 - 1)}
	a.follow(rs)
	a.collect(rs)
	if len(a.Addrs) == 0 {
		return Answer{}, fmt.Errorf("dns message: %w", ErrNoAnswer)
	}
	return a, nil
}

// record is an alias or an address.
type record struct {
	owner, alias string
	addr         netip.Addr
	ttl          time.Duration
}

// records reads the answer section up to its end, a cut, or what is broken.
func records(p *dnsmessage.Parser) []record {
	var out []record
	for range maxRecords {
		h, err := p.AnswerHeader()
		if err != nil {
			return out
		}
		r := record{owner: lower(h.Name), ttl: time.Duration(h.TTL) * time.Second}
		if h.TTL > 1<<31-1 {
			r.ttl = 0 // RFC 2181, section 8
		}
		if h.Class != dnsmessage.ClassINET {
			h.Type = 0
		}
		switch h.Type {
		case dnsmessage.TypeA:
			b, e := p.AResource()
			r.addr, err = netip.AddrFrom4(b.A), e
		case dnsmessage.TypeAAAA:
			b, e := p.AAAAResource()
			r.addr, err = netip.AddrFrom16(b.AAAA).Unmap(), e
		case dnsmessage.TypeCNAME:
			b, e := p.CNAMEResource()
			r.alias, err = lower(b.CNAME), e
		default:
			if p.SkipAnswer() != nil {
				return out
			}
			continue
		}
		if err != nil {
			return out
		}
		out = append(out, r)
	}
	return out
}

// follow finds the names that the question's name stands for.
func (a *Answer) follow(rs []record) {
	for len(a.Names) < maxChain {
		next, ttl := aliasOf(rs, a.Names[len(a.Names)-1])
		if next == "" || contains(a.Names, next) {
			return
		}
		a.Names = append(a.Names, next)
		a.TTL = min(a.TTL, ttl)
	}
}

func aliasOf(rs []record, name string) (string, time.Duration) {
	for _, r := range rs {
		if r.alias != "" && r.owner == name {
			return r.alias, r.ttl
		}
	}
	return "", 0
}

func (a *Answer) collect(rs []record) {
	for _, r := range rs {
		if r.addr.IsValid() && contains(a.Names, r.owner) && len(a.Addrs) < MaxAddrs {
			a.Addrs = append(a.Addrs, r.addr)
			a.TTL = min(a.TTL, r.ttl)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func lower(n dnsmessage.Name) string { return strings.ToLower(strings.TrimSuffix(n.String(), ".")) }
