// Package identity holds a site's Ed25519 key and the name that follows from it.
//
// A site is known by its ID, which is the text form of its libp2p peer id: the
// base58btc form of the identity multihash of the protobuf-wrapped public key
// (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md). Because an
// Ed25519 key fits into the id, whoever knows an ID can check a signature: no
// directory is asked, and none can lie. The id is derived here in plain Go, so
// that nothing but the transport needs libp2p.
//
// Duties of the caller: the private half lives in one file of mode 0600 (see
// Create and Load), leaves the process only through Private, which the transport
// needs for its handshake, and never appears in a log: a Key prints as its ID.
//
// Every signature is bound to a kind: what is signed is "hedgerow/<kind>/1", a
// zero byte, and the message. A signature made for one purpose is worthless for
// another.
package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrSignature says that a signature does not fit the author, kind and message.
var ErrSignature = errors.New("identity: the signature does not fit")

// An ID names a site: 52 characters that begin with "12D3KooW". The zero value names nobody.
type ID string

// idPrefix is an identity multihash (code 0, length 36) of a protobuf
// PublicKey message: field 1 (type) = 1, Ed25519; field 2 (data), 32 bytes.
var idPrefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

const idLen = len(idPrefix) + ed25519.PublicKeySize

// IDOf derives the ID of a public key of ed25519.PublicKeySize bytes.
func IDOf(pub ed25519.PublicKey) ID {
	return ID(encode58(append(idPrefix[:len(idPrefix):len(idPrefix)], pub...)))
}

// ParseID checks that s is the ID of an Ed25519 key in its one canonical form.
func ParseID(s string) (ID, error) {
	if _, err := ID(s).Public(); err != nil {
		return "", err
	}
	return ID(s), nil
}

// Public is the key inside the ID.
func (id ID) Public() (ed25519.PublicKey, error) {
	if len(id) > 64 { // decoding is quadratic: bound it before, not after
		return nil, fmt.Errorf("identity: id: %d characters: expected 52, beginning with 12D3KooW", len(id))
	}
	b, err := decode58(string(id))
	if err != nil {
		return nil, fmt.Errorf("identity: id %q: %v", string(id), err)
	}
	if len(b) != idLen || string(b[:len(idPrefix)]) != string(idPrefix[:]) || encode58(b) != string(id) {
		return nil, fmt.Errorf("identity: id %q: expected the peer id of an Ed25519 key (52 characters, beginning with 12D3KooW)", string(id))
	}
	return ed25519.PublicKey(b[len(idPrefix):]), nil
}

// Short is the ID's last eight characters, for people: the first ones are the same for every site.
func (id ID) Short() string {
	if len(id) <= 8 {
		return string(id)
	}
	return string(id[len(id)-8:])
}

// A Key is a site's signing key. It is safe for concurrent use.
type Key struct {
	priv ed25519.PrivateKey
	id   ID
}

// Generate makes a key from 32 bytes of r, which is crypto/rand.Reader outside
// of tests and simulations. Equal bytes give equal keys.
func Generate(r io.Reader) (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(r, seed); err != nil {
		return nil, fmt.Errorf("identity: generate: %v", err)
	}
	return newKey(ed25519.NewKeyFromSeed(seed)), nil
}

func newKey(priv ed25519.PrivateKey) *Key {
	return &Key{priv: priv, id: IDOf(priv.Public().(ed25519.PublicKey))}
}

// ID names the key's site.
func (k *Key) ID() ID { return k.id }

// Private is the raw private key, for the transport's own handshake. Do not
// store, print or send it.
func (k *Key) Private() ed25519.PrivateKey { return k.priv }

// Sign signs msg for one kind of use. The result has ed25519.SignatureSize bytes.
func (k *Key) Sign(kind string, msg []byte) []byte { return ed25519.Sign(k.priv, bind(kind, msg)) }

// String is the ID, so that a key printed by mistake shows nothing secret.
func (k *Key) String() string { return string(k.id) }

// Format prints the ID whatever the verb: %#v and %d would show the private half.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, string(k.id)) }

// LogValue keeps slog from showing the private half.
func (k *Key) LogValue() slog.Value { return slog.StringValue(string(k.id)) }

// Verify checks that id signed msg for this kind of use. It returns
// ErrSignature, or what is wrong with the id.
func Verify(id ID, kind string, msg, sig []byte) error {
	pub, err := id.Public()
	if err != nil {
		return err
	}
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(pub, bind(kind, msg), sig) {
		return ErrSignature
	}
	return nil
}

// bind separates the domains. A kind has no zero byte, so the border is unambiguous.
func bind(kind string, msg []byte) []byte {
	b := make([]byte, 0, len("hedgerow//1")+len(kind)+1+len(msg))
	b = append(b, "hedgerow/"...)
	b = append(b, kind...)
	b = append(b, "/1\x00"...)
	return append(b, msg...)
}
