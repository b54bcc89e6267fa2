package dataplane_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
)

func TestScoringIsChecked(t *testing.T) {
	good := scoretest.Random(rand.New(rand.NewPCG(1, 1)), 1, 1, 1)
	share := score.ShareOf([4]uint64{1, 2, 3, 4}, 0.1)
	for _, c := range []struct {
		s    dataplane.Scoring
		want string
	}{
		{dataplane.Scoring{}, ""},
		{dataplane.Scoring{Active: good, Hold: time.Second}, ""},
		{dataplane.Scoring{Active: good, Trial: good, Canary: share}, ""},
		{dataplane.Scoring{Trial: good}, ""},
		{dataplane.Scoring{Active: good, Hold: time.Millisecond}, "hold"},
		{dataplane.Scoring{Active: good, Hold: 2 * time.Hour}, "hold"},
		{dataplane.Scoring{Trial: good, Canary: share}, "canary"},
		{dataplane.Scoring{Active: good, Canary: share}, "canary"},
		{dataplane.Scoring{Active: &score.Scorer{}}, "active: scorer"},
		{dataplane.Scoring{Active: good, Trial: &score.Scorer{}}, "trial: scorer"},
	} {
		err := c.s.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, expected %q", c.s, err, c.want)
		}
	}
	filled := dataplane.Scoring{}.Filled()
	if filled.Hold != dataplane.DefaultHold || filled.Rate != dataplane.DefaultHeldRate || filled.Judges() {
		t.Errorf("got %+v", filled)
	}
}

func TestOutcomesHaveWords(t *testing.T) {
	seen := map[string]bool{}
	for o := range dataplane.Outcome(dataplane.Outcomes) {
		if seen[o.String()] || o.String() == "" {
			t.Errorf("outcome %d: word %q", o, o)
		}
		seen[o.String()] = true
	}
}
