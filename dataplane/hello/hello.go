// Package hello reads what a TLS client says before anything is encrypted: the
// ClientHello, over TCP (RFC 8446, RFC 5246) or in the Initial packets of QUIC
// (RFC 9001; version 2: RFC 9369), whose keys follow from what is on the wire.
// Nothing is decrypted that was meant to be secret.
//
// Parse reads one message. An Assembly puts it together from the first segments
// or datagrams of a flow, in any order. A Tracker does so for many flows at once
// and hangs what was read on their records. All of it is pure: no clock, no
// goroutine, no file.
//
// What is read comes from a stranger. Every length is checked before it is used,
// every buffer has a fixed bound, and what is odd makes the hello unknown, never
// a guess: a fingerprint of half a message would be that of nobody.
//
// The fingerprint is JA4 (FoxIO, 2023; its TLS client part is free under the
// BSD licence): what a client offers, sorted, so that a client that shuffles its
// offer at each connection still looks like itself.
package hello

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// MaxMessage is the longest ClientHello that is read. Those with post-quantum
// key shares have about 1,800 bytes.
const MaxMessage = 4096

// maxName is how long a domain can be.
const maxName = 253

// ErrMalformed says that a message is no ClientHello, or a broken one.
var ErrMalformed = errors.New("not a ClientHello")

// Extensions that are looked into.
const (
	extName       = 0x0000
	extSignatures = 0x000d
	extALPN       = 0x0010
	extVersions   = 0x002b
	extECH        = 0xfe0d
)

const clientHello = 1

// offer is a ClientHello taken apart. GREASE is left out of all lists.
type offer struct {
	legacy                uint16
	ciphers, exts, signed []uint16
	versions              []uint16
	alpn                  []byte // the first protocol
	hasALPN               bool
	named, ech            bool
	name                  string
}

// Parse reads a ClientHello: a whole handshake message, its header of four bytes
// included. quic says that it came over QUIC. The error wraps ErrMalformed.
func Parse(msg []byte, quic bool) (*flow.Hello, error) {
	o, err := read(msg)
	if err != nil {
		return nil, fmt.Errorf("client hello: %s: %w", err, ErrMalformed)
	}
	h := &flow.Hello{
		Told: flow.ToldAll, QUIC: quic, Named: o.named, ECH: o.ech, Version: o.version(),
		Ciphers: uint16(len(o.ciphers)), Extensions: uint16(len(o.exts)),
		JA4: o.ja4(quic), Name: o.name, Protocol: printable(o.alpn),
	}
	h.Print = flow.PrintOf(h.JA4)
	return h, nil
}

// read takes the message apart. The bounds of the lists are those of the message.
func read(msg []byte) (*offer, error) {
	r := reader(msg)
	kind, body := r.u8(), r.u24()
	if kind != clientHello || len(msg) > MaxMessage || body != len(msg)-4 {
		return nil, errors.New("header")
	}
	o := &offer{legacy: uint16(r.u16())}
	r.take(32) // random
	r.take(r.u8())
	suites := r.take(r.u16())
	compressions := r.take(r.u8())
	if r == nil || len(suites)%2 != 0 || len(compressions) == 0 || o.legacy>>8 != 3 {
		return nil, errors.New("body")
	}
	o.ciphers = values(suites)
	if len(r) == 0 { // SSL 3.0 and early TLS know no extensions
		return o, nil
	}
	exts := reader(r.take(r.u16()))
	if r == nil || len(r) != 0 {
		return nil, errors.New("extensions")
	}
	for len(exts) > 0 {
		kind, data := uint16(exts.u16()), reader(exts.take(exts.u16()))
		if exts == nil {
			return nil, errors.New("extension")
		}
		if isGrease(kind) {
			continue
		}
		o.exts = append(o.exts, kind)
		if !o.extension(kind, data) {
			return nil, fmt.Errorf("extension %d", kind)
		}
	}
	return o, nil
}

// extension looks into one; false when it is broken.
func (o *offer) extension(kind uint16, r reader) bool {
	switch kind {
	case extName:
		o.named = true
		return o.serverName(r)
	case extSignatures:
		list := r.take(r.u16())
		o.signed = values(list)
		return r != nil && len(list)%2 == 0
	case extVersions:
		list := r.take(r.u8())
		o.versions = values(list)
		return r != nil && len(list)%2 == 0
	case extALPN:
		list := reader(r.take(r.u16()))
		o.hasALPN = true
		o.alpn = list.take(list.u8())
		return r != nil && list != nil
	case extECH:
		o.ech = true
	}
	return true
}

// serverName takes the first host name of the list.
func (o *offer) serverName(r reader) bool {
	if len(r) == 0 {
		return true // what a server answers with; some clients send it
	}
	list := reader(r.take(r.u16()))
	kind, name := list.u8(), list.take(list.u16())
	if r == nil || list == nil {
		return false
	}
	if kind == 0 && len(name) <= maxName {
		o.name = strings.ToLower(printable(name))
	}
	return true
}

// version is the highest that is offered.
func (o *offer) version() uint16 {
	v := uint16(0)
	for _, x := range o.versions {
		if x>>8 == 3 { // not the drafts of 1.3
			v = max(v, x)
		}
	}
	if v == 0 {
		return o.legacy
	}
	return v
}

// printable is s when it is harmless to show, else "".
func printable(s []byte) string {
	for _, c := range s {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return ""
		}
	}
	return string(s)
}

// values are the numbers of a list, without GREASE.
func values(b []byte) []uint16 {
	out := make([]uint16, 0, len(b)/2)
	for ; len(b) > 1; b = b[2:] {
		if v := binary.BigEndian.Uint16(b); !isGrease(v) {
			out = append(out, v)
		}
	}
	return out
}

// isGrease says that a value stands for nothing (RFC 8701).
func isGrease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// A reader takes fields off its front. It becomes nil when one is not there,
// and then gives zeros.
type reader []byte

func (r *reader) take(n int) []byte {
	if n > len(*r) {
		*r = nil
		return nil
	}
	b := (*r)[:n:n]
	// Never nil, which means broken, when it is used up.
	*r = (*r)[n:len(*r):len(*r)]
	return b
}

func (r *reader) u8() int {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return int(b[0])
}

func (r *reader) u16() int {
	b := r.take(2)
	if b == nil {
		return 0
	}
	return int(binary.BigEndian.Uint16(b))
}

func (r *reader) u24() int { return r.u8()<<16 | r.u16() }
