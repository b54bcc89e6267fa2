package lifecycle

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// HostKey picks the hosts of a canary. It is the site's secret: who does not
// know it cannot tell which hosts a new model decides for, nor choose one that
// it does not.
type HostKey [16]byte

// Share is the rule by which model id decides for a share of hosts, in the form
// that the packet path applies as well. Each model gets other hosts.
func (k *HostKey) Share(id string, share float64) score.Share {
	var b [16 + 64]byte
	copy(b[:], k[:])
	copy(b[16:], id)
	sum := sha256.Sum256(b[:])
	var key [4]uint64
	for i := range key {
		key[i] = binary.BigEndian.Uint64(sum[8*i:])
	}
	return score.ShareOf(key, share)
}

// Canary says whether a host, given as 16 bytes of address, belongs to the share
// of hosts for which model id decides. It allocates nothing.
func (k *HostKey) Canary(id string, host [16]byte, share float64) bool {
	s := k.Share(id, share)
	return s.Picks(host)
}
