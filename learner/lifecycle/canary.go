package lifecycle

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// HostKey picks the hosts of a canary. It is the site's secret: who does not
// know it cannot tell which hosts a new model decides for, nor choose one that
// it does not.
type HostKey [16]byte

// Canary says whether a host, given as 16 bytes of address, belongs to the share
// of hosts for which model id decides. Each model gets other hosts. It allocates
// nothing.
func (k *HostKey) Canary(id string, host [16]byte, share float64) bool {
	if !(share > 0) {
		return false
	}
	var b [16 + 16 + 64]byte
	copy(b[:], k[:])
	copy(b[16:], host[:])
	copy(b[32:], id)
	sum := sha256.Sum256(b[:])
	return float64(binary.BigEndian.Uint64(sum[:])) < share*math.MaxUint64
}
