package chain

import (
	"fmt"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// asked counts what it is asked, and finds good what is signed "good".
type asked struct{ n int }

func (a *asked) Verify(_ identity.ID, _ string, _, sig []byte) bool {
	a.n++
	return string(sig) == "good"
}

// A good signature is checked once, whatever comes between; a bad one each time, and
// no part may be another's.
func TestRemember(t *testing.T) {
	a := new(asked)
	r := Remember(a)
	for range 3 {
		if !r.Verify("voter", "kind", []byte("msg"), []byte("good")) {
			t.Fatal("a good signature was refused")
		}
		if r.Verify("voter", "kind", []byte("msg"), []byte("bad")) {
			t.Fatal("a bad signature was taken")
		}
	}
	if a.n != 1+3 {
		t.Errorf("asked %d times: expected once for the good one, thrice for the bad one", a.n)
	}
	for _, other := range [][3]string{{"voterk", "ind", "msg"}, {"voter", "kindm", "sg"}, {"other", "kind", "msg"}, {"voter", "kind", "more"}} {
		before := a.n
		r.Verify(identity.ID(other[0]), other[1], []byte(other[2]), []byte("good"))
		if a.n != before+1 {
			t.Errorf("%v passed for what was checked before", other)
		}
	}
}

// What is kept is bounded, and what is used stays.
func TestRememberForgets(t *testing.T) {
	a := new(asked)
	r := Remember(a).(*remembering)
	check := func(s string) { r.Verify("voter", "kind", []byte(s), []byte("good")) }
	for i := range 10 * remembered {
		check(fmt.Sprint(i))
		check("used")
	}
	if n := len(r.now) + len(r.before); n > 2*remembered {
		t.Errorf("%d signatures are kept", n)
	}
	if a.n != 10*remembered+1 {
		t.Errorf("asked %d times: what is used again was checked again", a.n)
	}
	before := a.n
	check("0")
	if a.n != before+1 {
		t.Error("the first of many is still known")
	}
}
