// Package privacy says what a site's updates tell about one of its records, and
// keeps to a budget of it.
//
// An update made by noisy gradient descent (Abadi et al., CCS 2016) takes each
// record with a small probability into each step, cuts what it contributes to a
// length, and adds Gaussian noise in proportion to that length: Sum. An Account
// adds up over all steps what that reveals, as Renyi divergences of many orders
// (Mironov, Talwar, Zhang 2019), and turns them into the epsilon that holds at a
// delta. What a record is, one flow or all flows of one host, is the caller's
// choice, and so is the honesty of sampling each by itself. Nothing here hides a
// whole site.
//
// The package is pure: noise comes from a source that the caller chooses.
package privacy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrInput says that a parameter is out of range.
var ErrInput = errors.New("privacy: out of range")

// orders are those that a search of the best one needs: dense where a budget of
// 1 to 10 is decided, up to what tiny sampling rates want.
func orders() []float64 {
	var out []float64
	for a := 11; a < 110; a++ {
		out = append(out, float64(a)/10)
	}
	for a := 11; a < 64; a++ {
		out = append(out, float64(a))
	}
	return append(out, 80, 128, 256, 512)
}

// Account is what was revealed so far. Its zero value has nothing in it.
type Account struct {
	spent []float64 // Renyi divergence by order
}

// Spend adds steps of noisy descent, each of which took every record with
// probability rate (above 0, at most 1) and added noise of the given multiple of
// the length that contributions are cut to. After an error nothing was added.
func (a *Account) Spend(rate, noise float64, steps int) error {
	switch {
	case !(rate > 0 && rate <= 1):
		return fmt.Errorf("%w: sampling rate %g: expected above 0, at most 1", ErrInput, rate)
	case !(noise >= 0.1 && noise <= 1e6):
		return fmt.Errorf("%w: noise multiplier %g: expected 0.1 to 1e6", ErrInput, noise)
	case steps < 0 || steps > 1<<40:
		return fmt.Errorf("%w: %d steps: expected 0 to 2^40", ErrInput, steps)
	}
	if a.spent == nil {
		a.spent = make([]float64, len(orders()))
	}
	for i, order := range orders() {
		a.spent[i] += float64(steps) * divergence(rate, noise, order)
	}
	return nil
}

// Epsilon is what holds at delta (above 0, below 1): the least over the orders,
// by the conversion of Canonne, Kamath, Steinke (2020). An empty account has 0.
func (a *Account) Epsilon(delta float64) (float64, error) {
	if !(delta > 0 && delta < 1) {
		return 0, fmt.Errorf("%w: delta %g: expected above 0, below 1", ErrInput, delta)
	}
	if a.spent == nil {
		return 0, nil
	}
	least := math.Inf(1)
	for i, order := range orders() {
		eps := a.spent[i] + math.Log1p(-1/order) - (math.Log(delta)+math.Log(order))/(order-1)
		least = math.Min(least, eps)
	}
	return max(least, 0), nil
}

// Clone is an account of its own, to see what a plan would cost.
func (a *Account) Clone() *Account {
	return &Account{spent: append([]float64(nil), a.spent...)}
}

// accountVersion names the orders; an account over other ones cannot be added to.
const accountVersion = 1

// MarshalBinary encodes the account, so that it outlives the process.
func (a *Account) MarshalBinary() ([]byte, error) {
	b := []byte{accountVersion}
	for _, s := range a.spent {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s))
	}
	return b, nil
}

// UnmarshalBinary takes back what MarshalBinary wrote. On an error the account is
// as it was.
func (a *Account) UnmarshalBinary(b []byte) error {
	n := len(orders())
	if len(b) == 0 || b[0] != accountVersion || len(b) != 1 && len(b) != 1+8*n {
		return fmt.Errorf("%w: stored account of %d bytes: expected version %d with 0 or %d orders", ErrInput, len(b), accountVersion, n)
	}
	if len(b) == 1 {
		a.spent = nil
		return nil
	}
	spent := make([]float64, n)
	for i := range spent {
		spent[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[1+8*i:]))
		if !(spent[i] >= 0) {
			return fmt.Errorf("%w: stored account: order %d has %g: expected at least 0", ErrInput, i, spent[i])
		}
	}
	a.spent = spent
	return nil
}

// Left is how many more rounds of steps fit under a budget at delta, at most
// 1000. It errs as Spend and Epsilon do.
func (a *Account) Left(budget, delta, rate, noise float64, steps int) (int, error) {
	var one Account
	if err := one.Spend(rate, noise, steps); err != nil {
		return 0, err
	}
	next := a.Clone()
	if next.spent == nil {
		next.spent = make([]float64, len(one.spent))
	}
	for n := range 1000 {
		for i, s := range one.spent {
			next.spent[i] += s
		}
		if eps, err := next.Epsilon(delta); err != nil {
			return 0, err
		} else if eps > budget {
			return n, nil
		}
	}
	return 1000, nil
}

// divergence is one step's at an order above 1.
func divergence(rate, noise, order float64) float64 {
	switch {
	case rate == 1:
		return order / (2 * noise * noise)
	case order == math.Trunc(order):
		return whole(rate, noise, int(order)) / (order - 1)
	}
	return fraction(rate, noise, order) / (order - 1)
}

// whole is the log moment of a whole order: a sum of binomial terms, all above
// zero, in logarithms.
func whole(rate, noise float64, order int) float64 {
	sum := math.Inf(-1)
	for k := range order + 1 {
		sum = logAdd(sum, logBinomial(float64(order), k)+float64(k)*math.Log(rate)+float64(order-k)*math.Log1p(-rate)+
			float64(k*k-k)/(2*noise*noise))
	}
	return sum
}

// fraction is the log moment of any order: two series that meet where the two
// distributions are equally likely (section 3.3 of the paper). Terms alternate in
// sign once k passes the order, and fall off faster than they cancel.
func fraction(rate, noise, order float64) float64 {
	meet := noise*noise*math.Log(1/rate-1) + 0.5
	plus, minus := math.Inf(-1), math.Inf(-1)
	for k := 0; k < 10000; k++ {
		i, j := float64(k), order-float64(k)
		choose := logBinomial(order, k)
		low := choose + i*math.Log(rate) + j*math.Log1p(-rate) + (i*i-i)/(2*noise*noise) + logHalfErfc((i-meet)/(math.Sqrt2*noise))
		high := choose + j*math.Log(rate) + i*math.Log1p(-rate) + (j*j-j)/(2*noise*noise) + logHalfErfc((meet-j)/(math.Sqrt2*noise))
		if positive(order, k) {
			plus = logAdd(logAdd(plus, low), high)
		} else {
			minus = logAdd(logAdd(minus, low), high)
		}
		if i > order && max(low, high) < plus-30 {
			break
		}
	}
	return plus + math.Log1p(-math.Exp(minus-plus))
}

// positive says which sign the binomial coefficient of a fractional order has.
func positive(order float64, k int) bool {
	return float64(k) <= order+1 || (k-int(math.Ceil(order)))%2 == 0
}

// logBinomial is the logarithm of the size of "order over k".
func logBinomial(order float64, k int) float64 {
	a, _ := math.Lgamma(order + 1)
	b, _ := math.Lgamma(float64(k) + 1)
	c, _ := math.Lgamma(order - float64(k) + 1)
	return a - b - c
}

func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// logHalfErfc is log(erfc(x)/2), also where erfc itself is too small for a float.
func logHalfErfc(x float64) float64 {
	if x < 20 {
		return math.Log(math.Erfc(x) / 2)
	}
	s := 1 / (x * x)
	return -x*x - math.Log(2*x*math.Sqrt(math.Pi)) + math.Log1p(s*(-0.5+s*(0.75-1.875*s)))
}
