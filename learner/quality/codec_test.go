package quality

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// TestReferenceComesBack: what was encoded judges as what was not.
func TestReferenceComesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	ref := fill(t, window(t, Limits{}), rng, 500, 0).Reference()
	b, err := json.Marshal(ref)
	if err != nil || len(b) > MaxEncoded {
		t.Fatal(len(b), err)
	}
	var back Reference
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(ref, &back) {
		t.Fatalf("it came back otherwise: %v", err)
	}
	moved := fill(t, window(t, Limits{}), rng, 500, 0.3)
	if a, b := moved.Judge(ref, nil), moved.Judge(&back, nil); !reflect.DeepEqual(a, b) || len(a.Drifted) == 0 {
		t.Errorf("%+v and %+v", a, b)
	}
}

// TestReferenceIsChecked: each broken field is named.
func TestReferenceIsChecked(t *testing.T) {
	ref := fill(t, window(t, Limits{}), rand.New(rand.NewPCG(3, 9)), 200, 0).Reference()
	good, err := json.Marshal(ref)
	if err != nil {
		t.Fatal(err)
	}
	for old, c := range map[string][2]string{
		`"schema":`:  {`"schema":-`, "schema: -"},
		`"reports":`: {`"reports":-`, "reports: -"},
		`"cuts":[`:   {`"cuts":[9,8,`, "cuts"},
		`"shares":[`: {`"shares":[2,`, "shares"},
		`"inputs":[`: {`"inputs":[{"cuts":null,"shares":[0.5,0.5]},`, "inputs: "},
	} {
		var r Reference
		err := json.Unmarshal([]byte(strings.Replace(string(good), old, c[0], 1)), &r)
		if err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v: expected %q", c[0], err, c[1])
		}
	}
}

func FuzzReference(f *testing.F) {
	b, err := json.Marshal(fill(f, window(f, Limits{}), rand.New(rand.NewPCG(3, 9)), 60, 0).Reference())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Reference
		if r.UnmarshalJSON(b) != nil {
			return
		}
		again, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		var back Reference
		if err := back.UnmarshalJSON(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		w, _ := NewWindow(Limits{})
		w.Judge(&r, nil)
	})
}
