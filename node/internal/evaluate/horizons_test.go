package evaluate

import (
	"os"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// much are the deeds that hosts were told of in a trace, each with the share of the
// flows of the campaign that were over by then.
func much(t *testing.T, tr trace) map[string]float64 {
	t.Helper()
	s, err := enforce.NewSensor(feature.ContextOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	told, over, all := map[string]float64{}, 0.0, 0.0
	for i := range tr {
		if tr[i].end && tr[i].attack {
			all++
		}
	}
	for i := range tr {
		ev := tr[i].event()
		j, _ := s.Judge(&ev)
		deed := tr[i].rec.Initiator().Addr().String() + " " + j.Much.Deed.String()
		if _, known := told[deed]; j.Much.Tell && !known {
			told[deed] = over / max(all, 1)
		}
		if tr[i].end && tr[i].attack {
			over++
		}
	}
	return told
}

// What hosts do over a minute, an hour and a day, without any model: real campaigns that
// go on do too much before they are half over, and the normal days of three real hosts
// do not, each as a site of its own or all at once. The first six tenths of these days were looked
// at when the limits were made; the rest was not.
func TestHorizonsOnRealTraffic(t *testing.T) {
	dir := realdata.Dir(t, "stratosphere-zeek")
	var site trace
	for _, h := range dataset.Hosts(dir) {
		tr, err := readNormal(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if told := much(t, tr); len(told) > 0 {
			t.Errorf("%s: normal traffic told of: %v", h, told)
		}
		if len(site) > 0 {
			tr = tr.shift(site.begin() - tr.begin())
		}
		site = append(site, tr...)
	}
	slices.SortStableFunc(site, byTime)
	if told := much(t, site); len(told) > 0 {
		t.Errorf("three hosts: normal traffic told of: %v", told)
	}
	long := os.Getenv("HEDGEROW_LONG") == "1" // all campaigns, for what they show
	want := map[string]string{
		"NjRAT": "unanswered", "nmap": "knocked", "scan of ports": "knocked", "scan with ICMP": "pinged",
	}
	for _, c := range dataset.Campaigns(dir) {
		if !long && (want[c.Name] == "" || c.Name == "nmap") {
			continue
		}
		tr, err := readCampaign(t.Context(), &c)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]float64{}
		for _, x := range []float64{0.1, 0.5} {
			for k, share := range much(t, site.at(x, tr)) {
				found[k] = max(found[k], share)
			}
		}
		t.Logf("%s: %v", c.Name, found)
		if w := want[c.Name]; w != "" && !slices.ContainsFunc(keys(found), func(k string) bool { return found[k] < 0.5 && k[len(k)-len(w):] == w }) {
			t.Errorf("%s: told of %v: expected %s before half of it", c.Name, found, w)
		}
	}
}

func keys(m map[string]float64) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}
