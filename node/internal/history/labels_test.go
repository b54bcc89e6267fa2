package history

import (
	"fmt"
	"strings"
	"testing"
)

// TestBadLabelsAreNamed: of a file of labels each line that cannot be used is named with
// its line and field, and the others count.
func TestBadLabelsAreNamed(t *testing.T) {
	const flows, uids = "src,sport,dst,dport,proto,label\n", "uid,label,family\n"
	good := map[string]string{flows: "10.0.0.1,%d,10.0.0.2,2,tcp,attack\n", uids: "C%d,attack,probe\n"}
	for what, c := range map[string]struct{ head, bad, want string }{
		"address":          {flows, "10.0.0.300,1,10.0.0.2,2,tcp,1\n", "field src: found \"10.0.0.300\""},
		"other address":    {flows, "10.0.0.1,1,nobody,2,tcp,1\n", "field dst"},
		"port":             {flows, "10.0.0.1,65536,10.0.0.2,2,tcp,1\n", "field sport: found \"65536\""},
		"port NaN":         {flows, "10.0.0.1,NaN,10.0.0.2,2,tcp,1\n", "field sport"},
		"negative port":    {flows, "10.0.0.1,1,10.0.0.2,-2,tcp,1\n", "field dport"},
		"protocol":         {flows, "10.0.0.1,1,10.0.0.2,2,ipx,1\n", "field proto"},
		"no label":         {flows, "10.0.0.1,1,10.0.0.2,2,tcp,\n", "field label: not set"},
		"fewer values":     {flows, "10.0.0.1,1\n", "field label: not set"},
		"no label of uid":  {uids, "C9,,\n", "field label: not set"},
		"disagrees":        {uids, "C1,benign,\n", "field label: normal here and attack in line 2"},
		"too long":         {uids, strings.Repeat("x", maxLabelLine+1) + "\n", "expected at most"},
		"half of the last": {uids, "C9,ben", "a line end"},
	} {
		t.Run(what, func(t *testing.T) {
			text := c.head + fmt.Sprintf(good[c.head], 1) + fmt.Sprintf(good[c.head], 2) + c.bad
			tr, err := tableOf("labels.csv", text)
			if err != nil || tr.Labels != 2 || tr.Refused != 1 || tr.Strict() == nil {
				t.Fatalf("%d labels, %d refused: %v", tr.Labels, tr.Refused, err)
			}
			if !strings.HasPrefix(tr.Faults[0], "labels.csv: line 4: ") || !strings.Contains(tr.Faults[0], c.want) {
				t.Errorf("%s: expected %q", tr.Faults[0], c.want)
			}
			if n, _ := tr.Unused(); what == "disagrees" && n != 1 {
				t.Errorf("%d labels wait for a flow: expected 1, since neither of two that disagree is used", n)
			}
		})
	}
	// Columns in another order and ones that nobody knows.
	if tr, err := tableOf("l", "proto,note,label,dport,dst,sport,src\ntcp,x,scan,2,10.0.0.2,1,10.0.0.1\n"); err != nil || tr.Labels != 1 || tr.Refused != 0 {
		t.Errorf("in another order: %+v, %v", tr, err)
	}
	// A file of which much is wrong is not what it was taken for.
	many := flows + strings.Repeat("10.0.0.1,1,10.0.0.2,2,tcp,attack\n", 1000) + strings.Repeat("10.0.0.1,1,10.0.0.2,2,tcp,\n", fewRefused+1)
	if _, err := tableOf("labels.csv", many); err == nil || !strings.Contains(err.Error(), "21 of 1021 labels cannot be used, first: labels.csv: line 1002") {
		t.Errorf("got %v", err)
	}
}
