package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// remembered is how many good signatures are kept at least; twice as many at most.
// It is more than a round of wire.MaxOrgs organisations has.
const remembered = 16 * wire.MaxOrgs

// remembering is a Crypto that checks a good signature once. The same signatures come
// as messages first, then under the set in a proposal, then under a seal.
type remembering struct {
	Crypto
	mu          sync.Mutex
	now, before map[[32]byte]struct{}
}

// Remember makes a Crypto that knows the last good signatures again. Bad ones are not
// kept: who sends those is to displace nothing.
func Remember(c Crypto) Crypto { return &remembering{Crypto: c, now: make(map[[32]byte]struct{})} }

// Verify implements Crypto.
func (r *remembering) Verify(voter identity.ID, kind string, msg, sig []byte) bool {
	key := checkOf(voter, kind, msg, sig)
	r.mu.Lock()
	_, again := r.now[key]
	if _, old := r.before[key]; old && !again {
		again = true
		r.keep(key)
	}
	r.mu.Unlock()
	if again {
		return true
	}
	if !r.Crypto.Verify(voter, kind, msg, sig) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(key)
	return true
}

// keep notes a good signature; the older half is forgotten when there are too many.
// r.mu is held.
func (r *remembering) keep(key [32]byte) {
	if len(r.now) >= remembered {
		r.before, r.now = r.now, make(map[[32]byte]struct{})
	}
	r.now[key] = struct{}{}
}

// checkOf names what is checked, with the length of each part before it.
func checkOf(voter identity.ID, kind string, msg, sig []byte) [32]byte {
	b := make([]byte, 0, 512)
	for _, part := range [][]byte{[]byte(voter), []byte(kind), msg, sig} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}
