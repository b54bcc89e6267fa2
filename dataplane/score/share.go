package score

import (
	"encoding/binary"
	"math"
)

// Share picks the hosts for which a model on trial decides. The zero value picks
// none.
//
// The rule is one that the kernel computes as well: a multilinear hash (as in
// Lemire and Kaser, "Strongly universal string hashing is fast", 2014) of the
// host's address below a bound. Whoever does not know the key cannot tell whom
// it picks; a new key for each model picks others each time.
type Share struct {
	Key   [4]uint64
	Below uint64 // hosts whose hash of 32 bits is below it; 1<<32 is all of them
}

// ShareOf is the share of a part of all hosts, 0 to 1; what is beyond is clamped.
func ShareOf(key [4]uint64, part float64) Share {
	if !(part > 0) {
		return Share{}
	}
	return Share{Key: key, Below: uint64(math.Ceil(min(part, 1) * (1 << 32)))}
}

// Picks says whether a host, as 16 bytes of address (IPv4 as ::ffff:a.b.c.d), is
// of the share.
func (s *Share) Picks(host [16]byte) bool {
	w := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(host[4*i:])) }
	h := (s.Key[0]+w(0))*(s.Key[1]+w(1)) + (s.Key[2]+w(2))*(s.Key[3]+w(3))
	return h>>32 < s.Below
}
