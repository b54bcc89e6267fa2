package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/attack"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// Library is what the names of a scenario are looked up in.
type Library struct {
	Rules      robust.Set
	Attacks    []attack.Attack
	Partitions []Partition
	Sets       []Set
	Lies       []Lie // of depth mesh
}

// Builtin is what comes with hedgerow. The caller may append to its lists.
func Builtin() *Library {
	return &Library{
		Rules:      robust.All(),
		Attacks:    attack.All(),
		Partitions: []Partition{iid{}, dirichlet{}, family{}, byTime{}, byPlace{}},
		Sets:       builtinSets(),
		Lies:       builtinLies(),
	}
}

// A Set is a labelled data set.
type Set interface {
	Name() string
	// Files are the paths that Load reads below a folder; their SHA-256 is checked
	// before.
	Files(folder string) []string
	// Load reads training and test rows, whose columns, words and classes have one
	// numbering. No row may be in both.
	Load(folder string) (train, test *tabular.Table, err error)
}

// A Partition deals the training rows out to sites.
type Partition interface {
	Name() string
	// Deal lists the rows of each of p.Sites sites; no row may be dealt twice.
	// Sites that get too few are given some of the largest site's.
	Deal(t *tabular.Table, p Deal, rng *rand.Rand) ([][]int, error)
}

// Deal is what a partition goes by.
type Deal struct {
	Sites int
	Alpha float64 // of the Dirichlet distribution; above 0
}

// find looks a name up among named things.
func find[T any](all []T, name func(T) string, what, want string) (T, error) {
	var names []string
	for _, x := range all {
		if name(x) == want {
			return x, nil
		}
		names = append(names, name(x))
	}
	slices.Sort(names)
	var none T
	return none, fmt.Errorf("found %q: expected %s, one of %q", want, what, names)
}

func (l *Library) attack(name string) (attack.Attack, error) {
	return find(l.Attacks, func(a attack.Attack) string { return a.Name }, "an attack", name)
}

func (l *Library) lie(name string) (Lie, error) {
	return find(l.Lies, func(x Lie) string { return x.Name }, "what sites say to mislead", name)
}

func (l *Library) partition(name string) (Partition, error) {
	return find(l.Partitions, Partition.Name, "a partition", name)
}

func (l *Library) set(name string) (Set, error) {
	return find(l.Sets, Set.Name, "a data set", name)
}

func (l *Library) rule(name string) (robust.Rule, error) {
	return find(l.Rules, func(r robust.Rule) string { return r.About().Name }, "a rule", name)
}

// Every site gets leastRows, whatever the partition; fewer, but never less than
// fewestRows, where there are so many sites.
const (
	leastRows  = 16
	fewestRows = 4
)

// deal has a partition deal, and holds it to what it promises.
func deal(p Partition, t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	if t.Rows() < fewestRows*d.Sites {
		return nil, fmt.Errorf("sites.count: %d sites need at least %d training rows: the data set has %d", d.Sites, fewestRows*d.Sites, t.Rows())
	}
	least := min(leastRows, t.Rows()/d.Sites)
	parts, err := p.Deal(t, d, rng)
	if err != nil {
		return nil, fmt.Errorf("sites.partition: %s: %w", p.Name(), err)
	}
	if len(parts) != d.Sites {
		return nil, fmt.Errorf("sites.partition: %s dealt to %d sites: expected %d", p.Name(), len(parts), d.Sites)
	}
	seen := make([]bool, t.Rows())
	for _, rows := range parts {
		for _, r := range rows {
			if r < 0 || r >= len(seen) || seen[r] {
				return nil, fmt.Errorf("sites.partition: %s dealt row %d twice, or it is none", p.Name(), r)
			}
			seen[r] = true
		}
	}
	for i := range parts {
		for len(parts[i]) < least {
			rich := 0
			for k := range parts {
				if len(parts[k]) > len(parts[rich]) {
					rich = k
				}
			}
			if len(parts[rich]) <= least {
				return nil, errors.New("sites.partition: too few rows were dealt for every site to have some")
			}
			last := len(parts[rich]) - 1
			parts[i], parts[rich] = append(parts[i], parts[rich][last]), parts[rich][:last]
		}
	}
	return parts, nil
}

// byClass lists the rows of each class in a random order.
func byClass(l tabular.Labels, rng *rand.Rand) [][]int {
	out := make([][]int, len(l.Names))
	for r, k := range l.Of {
		out[k] = append(out[k], r)
	}
	for _, rows := range out {
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	return out
}

// iid: every site's rows are a sample of all.
type iid struct{}

func (iid) Name() string { return "iid" }

func (iid) Deal(t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	out := make([][]int, d.Sites)
	for i, r := range rng.Perm(t.Rows()) {
		out[i%d.Sites] = append(out[i%d.Sites], r)
	}
	return out, nil
}

// dirichlet: of each class, sites have shares drawn from a Dirichlet distribution
// (Hsu, Qi, Brown 2019); the smaller alpha is, the less they are alike.
type dirichlet struct{}

func (dirichlet) Name() string { return "dirichlet" }

func (dirichlet) Deal(t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	if !(d.Alpha > 0) {
		return nil, fmt.Errorf("sites.alpha: found %g: expected more than 0", d.Alpha)
	}
	out := make([][]int, d.Sites)
	for _, rows := range byClass(t.Class, rng) {
		share := make([]float64, d.Sites)
		var sum float64
		for i := range share {
			share[i] = gamma(d.Alpha, rng)
			sum += share[i]
		}
		at, upTo := 0, 0.0
		for i := range share {
			upTo += share[i] / sum * float64(len(rows))
			end := min(int(upTo+0.5), len(rows))
			if i == d.Sites-1 {
				end = len(rows)
			}
			out[i] = append(out[i], rows[at:end]...)
			at = end
		}
	}
	return out, nil
}

// family: normal rows are dealt alike, and each family of attacks is known to few
// sites: those whose turn it is.
type family struct{}

func (family) Name() string { return "family" }

func (family) Deal(t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	out := make([][]int, d.Sites)
	kinds := byClass(t.Family, rng)
	kinds = append(kinds[:1], slices.DeleteFunc(kinds[1:], func(rows []int) bool { return len(rows) == 0 })...)
	slices.SortStableFunc(kinds[1:], func(a, b []int) int { return cmp.Compare(len(b), len(a)) })
	turn := rng.Perm(d.Sites)
	for k, rows := range kinds {
		owners := turn
		if k > 0 {
			owners = nil
			for i := (k - 1) % d.Sites; i < d.Sites; i += len(kinds) - 1 {
				owners = append(owners, turn[i])
			}
		}
		for i, r := range rows {
			who := owners[i%len(owners)]
			out[who] = append(out[who], r)
		}
	}
	return out, nil
}

// byTime: each site has a stretch of time.
type byTime struct{}

func (byTime) Name() string { return "time" }

func (byTime) Deal(t *tabular.Table, d Deal, _ *rand.Rand) ([][]int, error) {
	if t.Time == nil {
		return nil, errors.New("the data set has no times")
	}
	rows := t.Where(func(int) bool { return true })
	slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(t.Time[a], t.Time[b]) })
	out := make([][]int, d.Sites)
	for i := range out {
		out[i] = slices.Clone(rows[i*len(rows)/d.Sites : (i+1)*len(rows)/d.Sites])
	}
	return out, nil
}

// byPlace: sites stand at the data set's places in turn, and have rows of theirs only.
type byPlace struct{}

func (byPlace) Name() string { return "place" }

func (byPlace) Deal(t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	places := slices.DeleteFunc(byClass(t.Place, rng), func(rows []int) bool { return len(rows) == 0 })
	if len(places) < 2 || d.Sites < len(places) {
		return nil, fmt.Errorf("the training rows are of %d places: expected at least 2, and a site for each", len(places))
	}
	out := make([][]int, d.Sites)
	for p, rows := range places {
		here := (d.Sites - p + len(places) - 1) / len(places)
		for i, r := range rows {
			who := p + i%here*len(places)
			out[who] = append(out[who], r)
		}
	}
	return out, nil
}
