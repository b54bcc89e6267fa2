package learner

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// ReservoirOptions bound a reservoir. Zero values take the defaults.
type ReservoirOptions struct {
	// Size is how many vectors it holds; default 4096 (about 1.2 MB), at most 65536.
	Size int
	// Host, Peer and Service are the largest shares of Size that one of each
	// may hold; defaults 0.3, 0.2 and 0.5.
	Host, Peer, Service float64
	Seed                uint64
}

func (o ReservoirOptions) withDefaults() (ReservoirOptions, error) {
	if o.Size == 0 {
		o.Size = 4096
	}
	for _, d := range []struct {
		p *float64
		v float64
	}{{&o.Host, 0.3}, {&o.Peer, 0.2}, {&o.Service, 0.5}} {
		if *d.p == 0 {
			*d.p = d.v
		}
		if !(*d.p > 0 && *d.p <= 1) {
			return o, fmt.Errorf("reservoir: share %v: expected above 0 and at most 1", *d.p)
		}
	}
	if o.Size < 16 || o.Size > 1<<16 {
		return o, fmt.Errorf("reservoir: size %d: expected 16 to 65536", o.Size)
	}
	return o, nil
}

type held struct {
	at                  int64
	host, peer, service uint64
	v                   feature.Vector
}

// Reservoir keeps a bounded, fair sample of the vectors that may one day teach
// normal. When it is full a newcomer replaces a random entry, so that old
// entries fade (biased reservoir sampling, Aggarwal 2006); when its host, peer
// or service already holds its share, it replaces one of theirs. So nobody
// fills the sample by being loud. Equal calls with an equal seed give equal
// contents. It is for one goroutine.
type Reservoir struct {
	o       ReservoirOptions
	entries []held
	// counts for the three kinds of owner; an entry that falls to 0 is deleted.
	hosts, peers, services map[uint64]int
	added                  uint64
}

// NewReservoir makes an empty one.
func NewReservoir(o ReservoirOptions) (*Reservoir, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Reservoir{o: o, hosts: map[uint64]int{}, peers: map[uint64]int{}, services: map[uint64]int{}}, nil
}

// Len is how many vectors it holds.
func (r *Reservoir) Len() int { return len(r.entries) }

// Room is how many vectors it takes before one has to give way to another.
func (r *Reservoir) Room() int { return r.o.Size - len(r.entries) }

// Add offers a vector of a flow between a host and a peer, seen at a time,
// with hashes of host, peer and service.
func (r *Reservoir) Add(at time.Time, v *feature.Vector, host, peer, service uint64) {
	e := held{at.UnixNano(), host, peer, service, *v}
	r.added++
	rng := rand.New(rand.NewPCG(r.o.Seed, r.added)) // stateless: a restored reservoir goes on the same
	full := func(m map[uint64]int, k uint64, share float64) bool {
		return m[k] >= max(1, int(share*float64(r.o.Size)))
	}
	switch {
	case full(r.peers, peer, r.o.Peer):
		r.replace(rng, r.peers[peer], e, func(x *held) bool { return x.peer == peer })
	case full(r.hosts, host, r.o.Host):
		r.replace(rng, r.hosts[host], e, func(x *held) bool { return x.host == host })
	case full(r.services, service, r.o.Service):
		r.replace(rng, r.services[service], e, func(x *held) bool { return x.service == service })
	case len(r.entries) < r.o.Size:
		r.count(&e, 1)
		r.entries = append(r.entries, e)
	default:
		r.put(rng.IntN(len(r.entries)), e)
	}
}

// replace puts e in the place of a random one of the n entries that match. The
// newcomer may then hold more than its share of the two other kinds by one
// entry for each it replaces, so it only comes in when it does not.
func (r *Reservoir) replace(rng *rand.Rand, n int, e held, match func(*held) bool) {
	k := rng.IntN(n)
	for i := range r.entries {
		if !match(&r.entries[i]) {
			continue
		}
		if k == 0 {
			if r.fits(&r.entries[i], &e) {
				r.put(i, e)
			}
			return
		}
		k--
	}
}

// fits says whether all shares hold when a gives way to b.
func (r *Reservoir) fits(a, b *held) bool {
	ok := func(m map[uint64]int, old, next uint64, share float64) bool {
		return old == next || m[next] < max(1, int(share*float64(r.o.Size)))
	}
	return ok(r.peers, a.peer, b.peer, r.o.Peer) && ok(r.hosts, a.host, b.host, r.o.Host) &&
		ok(r.services, a.service, b.service, r.o.Service)
}

func (r *Reservoir) put(i int, e held) {
	r.count(&r.entries[i], -1)
	r.count(&e, 1)
	r.entries[i] = e
}

func (r *Reservoir) count(e *held, d int) {
	step := func(m map[uint64]int, k uint64) {
		if m[k] += d; m[k] <= 0 {
			delete(m, k)
		}
	}
	step(r.hosts, e.host)
	step(r.peers, e.peer)
	step(r.services, e.service)
}

// Mature gives the vectors seen before a time, oldest first: what has waited
// long enough to teach, less what came from peers that are suspected; nil
// suspects nobody. The vectors are copies.
func (r *Reservoir) Mature(before time.Time, suspect func(peer uint64) bool) []feature.Vector {
	refs := r.mature(before, suspect)
	out := make([]feature.Vector, len(refs))
	for k, i := range refs {
		out[k] = r.entries[i].v
	}
	return out
}

// MatureByHost is Mature with whose traffic each vector is, for those that have
// an owner (host 0 is nobody).
func (r *Reservoir) MatureByHost(before time.Time, suspect func(peer uint64) bool) map[uint64][]feature.Vector {
	out := make(map[uint64][]feature.Vector)
	for _, i := range r.mature(before, suspect) {
		if h := r.entries[i].host; h != 0 {
			out[h] = append(out[h], r.entries[i].v)
		}
	}
	return out
}

// mature is the indices of what may teach, oldest first.
func (r *Reservoir) mature(before time.Time, suspect func(peer uint64) bool) []int {
	var refs []int
	limit := before.UnixNano()
	for i := range r.entries {
		if r.entries[i].at < limit && (suspect == nil || !suspect(r.entries[i].peer)) {
			refs = append(refs, i)
		}
	}
	slices.SortFunc(refs, func(a, b int) int { return cmp.Or(cmp.Compare(r.entries[a].at, r.entries[b].at), cmp.Compare(a, b)) })
	return refs
}

// Each shows every entry to f, oldest first. The vector is valid until f returns.
func (r *Reservoir) Each(f func(at time.Time, v *feature.Vector, host, peer, service uint64)) {
	order := make([]int, len(r.entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(r.entries[a].at, r.entries[b].at), cmp.Compare(a, b))
	})
	for _, i := range order {
		e := &r.entries[i]
		f(time.Unix(0, e.at), &e.v, e.host, e.peer, e.service)
	}
}

// Forget removes all that came from a peer, because it was indicted, and says how much.
func (r *Reservoir) Forget(peer uint64) int {
	return r.remove(func(e *held) bool { return e.peer == peer })
}

// ForgetPair removes what a host and a peer did with each other, for when the
// host was the one that misbehaved, and says how much.
func (r *Reservoir) ForgetPair(host, peer uint64) int {
	return r.remove(func(e *held) bool { return e.host == host && e.peer == peer })
}

func (r *Reservoir) remove(bad func(*held) bool) int {
	kept := r.entries[:0]
	for i := range r.entries {
		if bad(&r.entries[i]) {
			r.count(&r.entries[i], -1)
		} else {
			kept = append(kept, r.entries[i])
		}
	}
	n := len(r.entries) - len(kept)
	clear(r.entries[len(kept):])
	r.entries = kept
	return n
}

const (
	reservoirVersion = 1
	entryHead        = 32
	entrySize        = entryHead + feature.EncodedSize
)

// MarshalBinary encodes the contents; the options are the reader's.
func (r *Reservoir) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 13+len(r.entries)*entrySize)
	b = append(b, reservoirVersion)
	b = binary.LittleEndian.AppendUint64(b, r.added)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.entries)))
	for i := range r.entries {
		e := &r.entries[i]
		for _, x := range []uint64{uint64(e.at), e.host, e.peer, e.service} {
			b = binary.LittleEndian.AppendUint64(b, x)
		}
		var err error
		if b, err = e.v.AppendBinary(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// UnmarshalBinary restores contents into a reservoir made by NewReservoir. Of
// more entries than fit, and of those beyond a share, the rest is left out. On
// an error the reservoir is as it was.
func (r *Reservoir) UnmarshalBinary(b []byte) error {
	if len(b) < 13 || b[0] != reservoirVersion {
		return errors.New("decode reservoir: not a reservoir of this version")
	}
	added, n := binary.LittleEndian.Uint64(b[1:]), int(binary.LittleEndian.Uint32(b[9:]))
	b = b[13:]
	size := entrySize
	if len(b) > entryHead {
		size = entryHead + feature.Size(b[entryHead:])
	}
	if n > 1<<16 || len(b) != n*size {
		return fmt.Errorf("decode reservoir: %d bytes for %d entries: expected %d", len(b), n, n*size)
	}
	next, err := NewReservoir(r.o)
	if err != nil {
		return fmt.Errorf("decode reservoir: %w", err)
	}
	next.added = added
	for i := range n {
		var e held
		part := b[i*size : (i+1)*size]
		e.at = int64(binary.LittleEndian.Uint64(part))
		e.host = binary.LittleEndian.Uint64(part[8:])
		e.peer = binary.LittleEndian.Uint64(part[16:])
		e.service = binary.LittleEndian.Uint64(part[24:])
		if err := e.v.UnmarshalBinary(part[entryHead:]); err != nil {
			return fmt.Errorf("decode reservoir: entry %d: %w", i, err)
		}
		none := held{host: ^e.host, peer: ^e.peer, service: ^e.service}
		if len(next.entries) < next.o.Size && next.fits(&none, &e) {
			next.count(&e, 1)
			next.entries = append(next.entries, e)
		}
	}
	*r = *next
	return nil
}
