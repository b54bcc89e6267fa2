package identity

import (
	"fmt"
	"math/big"
	"strings"
)

// alphabet is base58btc: no 0, O, I, l.
const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// encode58 writes leading zero bytes as '1' and the rest as a number to base 58.
func encode58(b []byte) string {
	zeros := 0
	for zeros < len(b) && b[zeros] == 0 {
		zeros++
	}
	n, base, digit := new(big.Int).SetBytes(b), big.NewInt(58), new(big.Int)
	var rev []byte
	for n.Sign() > 0 {
		n.DivMod(n, base, digit)
		rev = append(rev, alphabet[digit.Int64()])
	}
	var s strings.Builder
	s.WriteString(strings.Repeat("1", zeros))
	for i := len(rev) - 1; i >= 0; i-- {
		s.WriteByte(rev[i])
	}
	return s.String()
}

// decode58 is the inverse of encode58. Its cost is quadratic: bound the length first.
func decode58(s string) ([]byte, error) {
	zeros := 0
	for zeros < len(s) && s[zeros] == '1' {
		zeros++
	}
	n, base := new(big.Int), big.NewInt(58)
	for i := zeros; i < len(s); i++ {
		d := strings.IndexByte(alphabet, s[i])
		if d < 0 {
			return nil, fmt.Errorf("character %q is not base58", s[i])
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(d)))
	}
	return append(make([]byte, zeros), n.Bytes()...), nil
}
