package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Kinds of statements. Each is signed at most once per round by one voter; of
// commitments once per round and parent.
const (
	SayCommit  = "council-commit"
	SaySet     = "council-set"
	SaySetVote = "council-set-vote"
	SayList    = "council-list"
	SayVote    = "council-vote"
	sayEntry   = "council-entry"
)

// Crypto makes and checks signatures. Tests and the model check replace it by
// something cheap.
type Crypto interface {
	Verify(voter identity.ID, kind string, msg, sig []byte) bool
}

// Ed25519 is the Crypto of production.
type Ed25519 struct{}

// Verify implements Crypto.
func (Ed25519) Verify(voter identity.ID, kind string, msg, sig []byte) bool {
	return identity.Verify(voter, kind, msg, sig) == nil
}

// A Statement is what a signature means.
type Statement struct {
	Kind   string
	Round  uint64
	Parent wire.Hash // of a commitment; zeros otherwise
	Hash   wire.Hash // of the commitment, set or block
}

// Bytes is what is signed under Kind.
func (s Statement) Bytes(chain wire.Hash) []byte {
	b := append([]byte(nil), chain[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Round)
	b = append(b, s.Parent[:]...)
	return append(b, s.Hash[:]...)
}

// Conflict says whether two statements of a kind exclude each other: the same
// chain, round and parent, and not the same hash.
func Conflict(kind string, a, b []byte) bool {
	switch kind {
	case SayCommit, SaySet, SaySetVote, SayList, SayVote:
	default:
		return false
	}
	const size, place = 32 + 8 + 32 + 32, 32 + 8 + 32
	return len(a) == size && len(b) == size && bytes.Equal(a[:place], b[:place]) && !bytes.Equal(a[place:], b[place:])
}

// CommitHash is a commitment: it binds, and as long as the salt is secret it
// tells nothing.
func CommitHash(chain wire.Hash, voter identity.ID, round, epoch uint64, parent wire.Hash, salt [16]byte, delta wire.Hash) wire.Hash {
	b := append([]byte("hedgerow/commit/1\x00"), chain[:]...)
	b = append(b, voter...)
	b = binary.BigEndian.AppendUint64(b, round)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, parent[:]...)
	b = append(b, salt[:]...)
	b = append(b, delta[:]...)
	return sha256.Sum256(b)
}

// EntryBytes is what an organisation signs to approve a change of the roster.
func EntryBytes(chain wire.Hash, e *wire.Entry) (kind string, msg []byte) {
	b := append([]byte(nil), chain[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Epoch)
	for _, s := range []string{string(e.Voter), string(e.Kind)} {
		b = append(append(b, s...), 0)
	}
	return sayEntry, append(b, e.Org...)
}
