// Package canon is the one encoding of everything that is signed: CBOR (RFC 8949)
// in its core deterministic form, decoded strictly.
//
// Equal values have equal bytes, so a signature over the bytes is one over the
// value, and a value has one hash. Decoding refuses unknown or doubled keys,
// indefinite lengths, tags, NaN, infinities and invalid UTF-8, and then whatever
// does not encode back to the very bytes that came. Types that travel have integer
// keys (`cbor:"1,keyasint"`).
//
// Duties of the caller: bound the length before Unmarshal, and every field after.
package canon

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrForm says that bytes are well-formed but not in the deterministic encoding.
var ErrForm = errors.New("not in the deterministic encoding")

// Limits of every decoder.
const (
	MaxArray = 1024 // elements
	maxPairs = 32
	maxDepth = 8
)

// enc and dec hold immutable settings, no state.
var (
	enc = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())
	dec = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   maxDepth,
		MaxArrayElements:  MaxArray,
		MaxMapPairs:       maxPairs,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options: wrong in every run or in none
	}
	return v
}

// Marshal encodes v. NaN and infinities are errors.
func Marshal(v any) ([]byte, error) { return enc.Marshal(v) }

// Unmarshal decodes b into the pointer v, and refuses b unless v encodes back to it.
func Unmarshal(b []byte, v any) error {
	if err := dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%.120v", err)
	}
	again, err := enc.Marshal(v)
	if err != nil || !bytes.Equal(again, b) {
		return ErrForm
	}
	return nil
}
