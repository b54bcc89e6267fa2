package dataset

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// The short way reads a number as the long way does, or leaves it to that.
func TestPlainNumbers(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	digits := func(n int) (s string) {
		for range n {
			s += string(rune('0' + rng.IntN(10)))
		}
		return s
	}
	all := []string{"0", "0.00", "1.00", "007", ".5", "5.", "999999999999999", "0.1", "99999999999.99"}
	for range 20000 {
		all = append(all, digits(1+rng.IntN(14)), digits(rng.IntN(7))+"."+digits(1+rng.IntN(7)))
	}
	for _, s := range all {
		x, ok := plain(s)
		if want, err := strconv.ParseFloat(s, 64); !ok || err != nil || x != want {
			t.Errorf("%q: %v, %v: expected %v, %v", s, x, ok, want, err)
		}
	}
	for _, s := range []string{"", ".", "1.2.3", "-1", "+1", "1e5", "0x1", "1_0", "inf", "NaN", "1 ", "1234567890123456"} {
		if x, ok := plain(s); ok {
			t.Errorf("%q: %v: expected it to be left alone", s, x)
		}
	}
}
