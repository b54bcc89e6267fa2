package roster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Limits of what two sites tell each other of the roster.
const (
	MaxAsk    = 256
	MaxBundle = 1 << 20
	logPart   = 512 << 10 // of a bundle, entries of the log
	sitePart  = 300 << 10
)

// ErrFork says that another site has a different history of the same consortium:
// two thirds have signed two things in one place, and people must settle it.
var ErrFork = errors.New("roster: the other site has another history of this consortium")

// An ask says how far a site has come.
type ask struct {
	Consortium []byte `cbor:"1,keyasint"`
	Epoch      uint64 `cbor:"2,keyasint"`
	Head       []byte `cbor:"3,keyasint"`
	Known      []byte `cbor:"4,keyasint"` // sum of certificates and votes: who has the same need not send them
}

// bundle is what the other one has beyond that.
type bundle struct {
	Fork    bool     `cbor:"1,keyasint"`
	Epoch   uint64   `cbor:"2,keyasint"` // of who answers
	Entries [][]byte `cbor:"3,keyasint"`
	Sites   [][]byte `cbor:"4,keyasint"`
	Pending [][]byte `cbor:"5,keyasint"`
}

// Ask is the question for what others know beyond us.
func (d *Directory) Ask(now time.Time) ([]byte, error) {
	r := d.log.roster
	known := d.Sum(now)
	return canon.Marshal(ask{r.genesis[:], r.epoch, r.head[:], known[:]})
}

// Sum is a hash of the head, of the certificates that hold now, and of the entries
// that wait with who has signed them. Directories of one sum have nothing to tell
// each other.
func (d *Directory) Sum(now time.Time) Hash {
	h := sha256.New()
	_, _ = h.Write(d.log.roster.head[:]) // a hash never fails
	for _, r := range d.Records(now) {
		_, _ = h.Write(r.Raw)
	}
	waiting := slices.SortedFunc(slices.Values(d.pending), func(a, b *proposal) int { return slices.Compare(a.id[:], b.id[:]) })
	for _, p := range waiting {
		_, _ = h.Write(p.id[:])
		for _, v := range p.entry.Votes {
			_, _ = io.WriteString(h, "\x00"+v.Organisation)
		}
	}
	return Hash(h.Sum(nil))
}

// Answer answers another site's Ask.
func (d *Directory) Answer(b []byte, now time.Time) ([]byte, error) {
	var a ask
	if len(b) > MaxAsk {
		return nil, fmt.Errorf("%w: question of %d bytes: expected at most %d", ErrEntry, len(b), MaxAsk)
	}
	if err := canon.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%w: question: %v", ErrEntry, err)
	}
	r := d.log.roster
	if string(a.Consortium) != string(r.genesis[:]) {
		return nil, fmt.Errorf("%w: the question is about another consortium", ErrEntry)
	}
	out := bundle{Epoch: r.epoch}
	if head, ok := d.log.Head(a.Epoch); ok && string(head[:]) != string(a.Head) {
		out.Fork = true
		return canon.Marshal(out)
	}
	if sum := d.Sum(now); string(a.Known) == string(sum[:]) {
		return canon.Marshal(out)
	}
	out.Entries = d.log.Since(a.Epoch, logPart)
	if len(out.Entries) > canon.MaxArray {
		out.Entries = out.Entries[:canon.MaxArray]
	}
	size := 0
	for _, s := range d.Records(now) {
		if size += len(s.Raw); size > sitePart || len(out.Sites) == canon.MaxArray {
			break
		}
		out.Sites = append(out.Sites, s.Raw)
	}
	size = 0
	for _, p := range d.pending {
		e, err := p.entry.Encode()
		if size += len(e); err == nil && size <= MaxBundle-logPart-sitePart-4096 {
			out.Pending = append(out.Pending, e)
		}
	}
	return canon.Marshal(out)
}

// Learnt says what a bundle brought.
type Learnt struct {
	Entries, Sites, Pending int
	More                    bool // the other one has further entries: ask again
	Refused                 int  // certificates and entries that were turned down
}

// Any says whether anything was news.
func (l Learnt) Any() bool { return l.Entries+l.Sites+l.Pending > 0 }

// Learn takes another site's answer. What does not stand is left out: for entries
// of the log that is an error, as an honest site has none such.
func (d *Directory) Learn(b []byte, now time.Time) (l Learnt, err error) {
	var in bundle
	if len(b) > MaxBundle {
		return l, fmt.Errorf("%w: answer of %d bytes: expected at most %d", ErrEntry, len(b), MaxBundle)
	}
	if err := canon.Unmarshal(b, &in); err != nil {
		return l, fmt.Errorf("%w: answer: %v", ErrEntry, err)
	}
	if in.Fork {
		return l, ErrFork
	}
	for _, raw := range in.Entries {
		news, err := d.learnEntry(raw)
		if err != nil {
			return l, err
		}
		if news {
			d.pending = nil
			l.Entries++
		}
	}
	l.More = l.Entries > 0 && in.Epoch > d.log.roster.epoch
	d.learnRest(in, now, &l)
	return l, nil
}

// learnEntry appends an entry, unless it came from elsewhere since we asked.
func (d *Directory) learnEntry(raw []byte) (news bool, err error) {
	e, err := ParseEntry(raw)
	if err != nil {
		return false, err
	}
	if has, err := d.log.Has(e); has || err != nil {
		return false, err
	}
	return true, d.log.Append(e)
}

func (d *Directory) learnRest(in bundle, now time.Time, l *Learnt) {
	for _, raw := range in.Sites {
		changed, err := d.AddSite(raw, now)
		switch {
		case err != nil && !errors.Is(err, identity.ErrExpired):
			l.Refused++
		case changed:
			l.Sites++
		}
	}
	for _, raw := range in.Pending {
		e, err := ParseEntry(raw)
		if err != nil {
			l.Refused++
			continue
		}
		changed, applied, err := d.Propose(e)
		switch {
		case errors.Is(err, ErrParent): // decided meanwhile
		case err != nil:
			l.Refused++
		case applied:
			l.Entries++
		case changed:
			l.Pending++
		}
	}
}
