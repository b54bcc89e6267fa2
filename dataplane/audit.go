package dataplane

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Lists are what a plane spares and what it holds floods to: all that stands in
// its tables besides rules and the bulk set.
type Lists struct {
	Never, Remediation []Never
	Flood              Flood
}

// ListState is one list against what the plane's own tables hold. Entries are
// counted by prefix, or by setting.
type ListState struct {
	List     string   `json:"list"` // "never-block", "remediation", "flood limits", "protected and dark"
	Intended int      `json:"intended"`
	Enforced int      `json:"enforced"`          // as the tables say, whether intended or not
	Missing  []string `json:"missing,omitempty"` // intended, and not in the tables
	Extra    []string `json:"extra,omitempty"`   // in the tables, and not intended
	Changed  []string `json:"changed,omitempty"` // in the tables otherwise than intended
}

// Fits says that exactly what is intended is in the tables.
func (s *ListState) Fits() bool { return len(s.Missing)+len(s.Extra)+len(s.Changed) == 0 }

// Auditor is the part of a plane that reads its lists back.
type Auditor interface {
	// Audit compares want with what the plane's own tables hold now, and returns
	// one state for each list that the plane keeps.
	Audit(want Lists) ([]ListState, error)
}

// CompareList is the state of a list whose entries are words by name.
func CompareList(list string, want, have map[string]string) ListState {
	s := ListState{List: list, Intended: len(want), Enforced: len(have)}
	for name, words := range want {
		switch found, there := have[name]; {
		case !there:
			s.Missing = append(s.Missing, name)
		case found != words:
			s.Changed = append(s.Changed, fmt.Sprintf("%s (%s, intended %s)", name, found, words))
		}
	}
	for name := range have {
		if _, meant := want[name]; !meant {
			s.Extra = append(s.Extra, name)
		}
	}
	slices.Sort(s.Missing)
	slices.Sort(s.Extra)
	slices.Sort(s.Changed)
	return s
}

// NeverWords are the tuples of one prefix in words, in one order and without
// repeats.
func NeverWords(tuples []Never) string {
	var words []string
	for _, n := range tuples {
		w := "all"
		if n.Proto != 0 || n.Port != 0 {
			w = fmt.Sprintf("%s/%d", flow.ProtoName(n.Proto), n.Port)
		}
		if n.AnySide {
			w += " any-side"
		}
		words = append(words, w)
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " and ")
}
