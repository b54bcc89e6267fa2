package canon

import (
	"bytes"
	"errors"
	"testing"
)

type value struct {
	Name string   `cbor:"1,keyasint"`
	N    uint64   `cbor:"2,keyasint"`
	F    float64  `cbor:"3,keyasint"`
	List [][]byte `cbor:"4,keyasint,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	in := value{"a", 7, 0.5, [][]byte{{1}, {2, 3}}}
	b, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out value
	if err := Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(out)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x, %v; expected %x", again, err, b)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":            {},
		"long integer":     {0xa3, 1, 0x61, 'a', 2, 0x18, 7, 3, 0xf9, 0x38, 0},
		"keys in disorder": {0xa3, 2, 7, 1, 0x61, 'a', 3, 0xf9, 0x38, 0},
		"doubled key":      {0xa3, 1, 0x61, 'a', 1, 0x61, 'b', 2, 7},
		"unknown key":      {0xa4, 1, 0x61, 'a', 2, 7, 3, 0xf9, 0x38, 0, 9, 1},
		"trailing byte":    {0xa3, 1, 0x61, 'a', 2, 7, 3, 0xf9, 0x38, 0, 0},
		"indefinite":       {0xbf, 1, 0x61, 'a', 0xff},
		"tag":              {0xc1, 0xa3, 1, 0x61, 'a', 2, 7, 3, 0xf9, 0x38, 0},
		"NaN":              {0xa3, 1, 0x61, 'a', 2, 7, 3, 0xf9, 0x7e, 0},
		"bad UTF-8":        {0xa3, 1, 0x61, 0xff, 2, 7, 3, 0xf9, 0x38, 0},
		"missing key":      {0xa2, 1, 0x61, 'a', 2, 7},
	} {
		if err := Unmarshal(b, new(value)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Unmarshal([]byte{0xa3, 1, 0x61, 'a', 2, 0x18, 7, 3, 0xf9, 0x38, 0}, new(value)); !errors.Is(err, ErrForm) {
		t.Errorf("a long integer: %v, expected ErrForm", err)
	}
}
