//go:build !race

package evaluate

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// The whole study of a scan beside an office: it is found by its rule at the
// latest, the rates add up, and the report is written in all its forms.
func TestACampaignIsStudied(t *testing.T) {
	r, err := Run(t.Context(), Options{Dataset: knock(t), Normal: []string{office(t)}, Evasion: true})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Campaigns
	if len(c.Rows) != 1 || c.Rows[0].Flows != 80 || c.Rows[0].Beside != 0 || c.Companion.Flows != 360 {
		t.Fatalf("%+v", c)
	}
	x := c.Rows[0]
	if x.Whole.Sure >= 0.5 || x.Rules.Sure >= 0.5 || x.Whole.Sure > x.Rules.Sure || x.Rules.By != "rule:scan" || len(x.Shuffled.Runs) != 1 {
		t.Errorf("%+v", x)
	}
	if len(c.Evasion) != len(tactics) {
		t.Fatalf("%d curves, expected %d", len(c.Evasion), len(tactics))
	}
	for i, e := range c.Evasion {
		if len(e.Sure) != len(tactics[i].costs) || e.Sure[0] >= 0.5 {
			t.Errorf("%s, undisturbed at first: %v", e.Way, e.Sure)
		}
	}
	var page, text strings.Builder
	if err := errors.Join(r.HTML(&page), r.Print(&text)); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"sure_before_half"`) {
		t.Errorf("as JSON: %.200s (%v)", b, err)
	}
	if !strings.Contains(text.String(), "knock.log") || strings.Count(page.String(), "<svg") != 1+len(tactics) {
		t.Errorf("%d figures; text %.300s", strings.Count(page.String(), "<svg"), text.String())
	}
	svg := page.String()[strings.Index(page.String(), "<svg"):strings.LastIndex(page.String(), "</svg>")]
	d := xml.NewDecoder(strings.NewReader("<x>" + svg + "</svg></x>"))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFileWithoutFlowsIsRefused(t *testing.T) {
	empty := logOf(t, "empty.log", 3, func(int, *rand.Rand) string { return "nothing of a flow" })
	if _, err := Run(t.Context(), Options{Dataset: knock(t), Normal: []string{empty}}); err == nil || !strings.Contains(err.Error(), "empty.log") {
		t.Errorf("error %v: expected one that names the file", err)
	}
}
