package config

import (
	"reflect"
	"slices"
	"testing"
)

// Every key of the file, and no other, can be told as changed.
func TestChangedNamesEveryKey(t *testing.T) {
	whole, err := parse(whole1)
	if err != nil {
		t.Fatal(err)
	}
	d := Default()
	got := Changed(whole, &d)
	want := []string{"dataplane.attach", "mesh.peer", "feed"}
	for _, f := range fields() {
		want = append(want, f.key)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant %q", got, want)
	}
}

func TestChangedIsSilentOfEquals(t *testing.T) {
	a, err := parse(whole1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := parse(whole1)
	if err != nil {
		t.Fatal(err)
	}
	if got := Changed(a, b); len(got) != 0 {
		t.Errorf("equal files differ in %q", got)
	}
	none, err := parse("[dataplane]\nnever_block = []")
	if err != nil {
		t.Fatal(err)
	}
	if d := Default(); len(Changed(none, &d)) != 0 {
		t.Error("an empty list differs from none")
	}
	b.Feeds.List[0].Every++
	b.Mesh.Peers = nil
	if got := Changed(a, b); !reflect.DeepEqual(got, []string{"mesh.peer", "feed"}) {
		t.Errorf("found %q", got)
	}
}
