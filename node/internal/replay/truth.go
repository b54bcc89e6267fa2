package replay

import (
	"fmt"
	"math"
	"sort"

	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// labels is ground truth for one capture.
type labels struct {
	whole, all bool
	packets    []bool
}

func readTruth(s string) (*labels, error) {
	switch s {
	case "":
		return nil, nil
	case "attack":
		return &labels{whole: true, all: true}, nil
	case "benign":
		return &labels{whole: true}, nil
	}
	p, err := intake.ReadPacketTruth(s)
	if err != nil {
		return nil, fmt.Errorf("ground truth: %w (expected a per-packet CSV, or the word attack or benign)", err)
	}
	return &labels{packets: p}, nil
}

func (l *labels) bad(i int64) bool {
	return l != nil && i < int64(len(l.packets)) && l.packets[i]
}

// Truth compares what was said with what was so, flow by flow.
type Truth struct {
	Benign    int `json:"benign_flows"`
	Malicious int `json:"malicious_flows"`
	Unjudged  int `json:"unjudged_flows"` // no model spoke: not in the figures below
	// AUC is the chance that a malicious flow scores above a benign one; nil
	// when one of the two is missing.
	AUC *float64 `json:"auc"`
	// Detection at false-alarm rates 0.1 %, 1 % and 5 %; nil when benign flows
	// are too few to say (below 1,000, 100 and 20).
	At01 *float64 `json:"dr_at_0.1pct"`
	At1  *float64 `json:"dr_at_1pct"`
	At5  *float64 `json:"dr_at_5pct"`
	// At the alpha of the run, rules included:
	Detected    int `json:"malicious_alerted"`
	FalseAlarms int `json:"benign_alerted"`
}

type scores struct {
	good, bad          []float64
	unjudged           int
	alertGood, alertBd int
	nGood, nBad        int
}

func (s *scores) add(f *judged) {
	if f.malicious {
		s.nBad++
		if f.alerted {
			s.alertBd++
		}
	} else {
		s.nGood++
		if f.alerted {
			s.alertGood++
		}
	}
	switch {
	case !f.known:
		s.unjudged++
	case f.malicious:
		s.bad = append(s.bad, f.score)
	default:
		s.good = append(s.good, f.score)
	}
}

func (s *scores) truth() *Truth {
	t := &Truth{
		Benign: s.nGood, Malicious: s.nBad, Unjudged: s.unjudged,
		Detected: s.alertBd, FalseAlarms: s.alertGood,
		AUC:  auc(s.good, s.bad),
		At01: detection(s.good, s.bad, 0.001), At1: detection(s.good, s.bad, 0.01), At5: detection(s.good, s.bad, 0.05),
	}
	return t
}

// auc is the Mann-Whitney statistic; ties count one half.
func auc(good, bad []float64) *float64 {
	if len(good) == 0 || len(bad) == 0 {
		return nil
	}
	type x struct {
		v   float64
		bad bool
	}
	all := make([]x, 0, len(good)+len(bad))
	for _, v := range good {
		all = append(all, x{v, false})
	}
	for _, v := range bad {
		all = append(all, x{v, true})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].v < all[j].v })
	sum := 0.0
	for i := 0; i < len(all); {
		j, n := i, 0
		for ; j < len(all) && all[j].v == all[i].v; j++ {
			if all[j].bad {
				n++
			}
		}
		sum += float64(n) * (float64(i+j+1) / 2) // mean rank of the tie, from 1
		i = j
	}
	nb, ng := float64(len(bad)), float64(len(good))
	a := (sum - nb*(nb+1)/2) / (nb * ng)
	return &a
}

// detection is the share of bad above the highest threshold that at most a share
// fpr of good exceeds. At least one good flow must be allowed to, else the
// figure would say more than was measured.
func detection(good, bad []float64, fpr float64) *float64 {
	allowed := int(math.Floor(fpr*float64(len(good)) + 1e-9))
	if allowed < 1 || len(bad) == 0 {
		return nil
	}
	g := append([]float64(nil), good...)
	sort.Sort(sort.Reverse(sort.Float64Slice(g)))
	threshold := math.Inf(-1)
	if allowed < len(g) {
		threshold = g[allowed]
	}
	n := 0
	for _, v := range bad {
		if v > threshold {
			n++
		}
	}
	d := float64(n) / float64(len(bad))
	return &d
}
