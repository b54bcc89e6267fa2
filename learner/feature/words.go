package feature

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Describe says feature i of the vector in words, with the number in its
// natural unit: "sent 3.1 MB", "its initiator tried 48 ports in a minute".
func Describe(i int, v *Vector) string {
	if i < 0 || i >= Dim {
		return ""
	}
	s := &specs[i]
	if !v.Known(i) {
		return fmt.Sprintf("%s is unknown", s.Name)
	}
	return Words(i, Natural(i, v.X[i]))
}

// Words says a natural value of feature i.
func Words(i int, natural float64) string {
	s := &specs[i]
	switch {
	case s.scale == flag && natural >= 0.5:
		return s.words
	case s.scale == flag:
		return s.not
	case s.scale == novel:
		return novelty(s.words, natural)
	case s.scale == signed:
		from := "from the initiator"
		if natural < 0 {
			from = "from the responder"
		}
		return fmt.Sprintf(s.words, Quantity(i, math.Abs(natural))) + " " + from
	}
	return fmt.Sprintf(s.words, Quantity(i, natural))
}

// novelty words a count of earlier flows: never, once, n times.
func novelty(words string, n float64) string {
	switch math.Round(n) {
	case 0:
		return strings.Replace(words, "%s times before", "never before", 1)
	case 1:
		return strings.Replace(words, "%s times", "once", 1)
	}
	return fmt.Sprintf(words, number(n))
}

// Quantity is a natural value of feature i with its unit, "3.1 MB" or "48".
func Quantity(i int, natural float64) string {
	switch specs[i].form {
	case bytes:
		return size(natural)
	case perSecond:
		return size(natural) + "/s"
	case seconds:
		return span(natural)
	case percent:
		return fmt.Sprintf("%.0f %%", 100*natural)
	case version:
		return flow.VersionName(flow.SSL30 + uint16(math.Round(natural)))
	}
	return number(natural)
}

// number prints counts whole and ratios with two digits.
func number(x float64) string {
	if r := math.Round(x); math.Abs(x-r) < 0.01*math.Max(1, math.Abs(x)) || math.Abs(x) >= 100 {
		return fmt.Sprintf("%.0f", r)
	}
	return fmt.Sprintf("%.2f", x)
}

// size prints bytes in powers of a thousand.
func size(b float64) string {
	unit := "B"
	for _, u := range []string{"kB", "MB", "GB"} {
		if b < 999.5 {
			break
		}
		b, unit = b/1000, u
	}
	if unit == "B" || b >= 99.5 {
		return fmt.Sprintf("%.0f %s", b, unit)
	}
	return fmt.Sprintf("%.1f %s", b, unit)
}

// span prints seconds in the unit that a person would choose.
func span(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.3g ms", s*1000)
	case s < 120:
		return fmt.Sprintf("%.3g s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
