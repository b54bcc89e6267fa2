package membership

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Limits of tokens.
const (
	MaxInvitation = 30 * 24 * time.Hour
	maxToken      = 2048
	tokenPrefix   = "hedgerow1-"
)

// Errors of tokens that a caller may test for.
var (
	ErrToken   = errors.New("the token cannot be read: copy it whole, from hedgerow1- on")
	ErrInvited = errors.New("the invitation has ended: ask for a new one")
)

// Kinds of invitations.
const (
	ForSite         = "site"         // of the inviting organisation
	ForOrganisation = "organisation" // of the consortium
)

// A Token is an invitation. Its text is a secret: it holds the key of the guest
// that the inviting site lets in once. Printed by mistake it shows whom it is for.
type Token struct {
	Kind         string
	Inviter      identity.ID // the site that lets the guest in, which the connection proves
	Addrs        []string    // where
	Expires      time.Time
	Organisation string      // the inviter's
	Root         identity.ID // of that organisation; "" when it has none
	Consortium   string      // its name; "" without
	Name         string      // of the invited site or organisation
	guest        *identity.Key
}

type tokenBody struct {
	Version      uint8    `cbor:"1,keyasint"`
	Kind         string   `cbor:"2,keyasint"`
	Inviter      string   `cbor:"3,keyasint"`
	Addrs        []string `cbor:"4,keyasint"`
	Expires      int64    `cbor:"5,keyasint"`
	Organisation string   `cbor:"6,keyasint"`
	Root         string   `cbor:"7,keyasint,omitempty"`
	Consortium   string   `cbor:"8,keyasint,omitempty"`
	Name         string   `cbor:"9,keyasint"`
	Secret       []byte   `cbor:"10,keyasint"`
}

// Invite makes a token of t with a guest of its own. What else it says may be filled
// in until Text.
func Invite(t Token) (*Token, error) {
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		return nil, err
	}
	t.guest = k
	return &t, nil
}

// Guest is the key that the invitation lets in.
func (t *Token) Guest() *identity.Key { return t.guest }

// Format shows whom the token is for, and nothing of its secret.
func (t *Token) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[invitation of "+t.Kind+" "+t.Name+"]")
}

// LogValue keeps the secret from logs.
func (t *Token) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// Text is the token as it is handed over, by a way that others cannot read.
func (t *Token) Text() (string, error) {
	if err := t.check(); err != nil {
		return "", err
	}
	b, err := canon.Marshal(tokenBody{
		1, t.Kind, string(t.Inviter), t.Addrs, t.Expires.Unix(), t.Organisation, string(t.Root), t.Consortium, t.Name, t.guest.Private().Seed(),
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...)), nil
}

// ReadToken reads what Text wrote. Its errors never quote the token.
func ReadToken(s string, now time.Time) (*Token, error) {
	s, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok || len(s) > maxToken {
		return nil, ErrToken
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 4 {
		return nil, ErrToken
	}
	sum := sha256.Sum256(b[:len(b)-4])
	var body tokenBody
	if string(sum[:4]) != string(b[len(b)-4:]) || canon.Unmarshal(b[:len(b)-4], &body) != nil {
		return nil, ErrToken
	}
	if body.Version != 1 || len(body.Secret) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w (version %d, expected 1)", ErrToken, body.Version)
	}
	k, err := identity.Generate(strings.NewReader(string(body.Secret)))
	if err != nil {
		return nil, ErrToken
	}
	t := &Token{
		body.Kind, identity.ID(body.Inviter), body.Addrs, time.Unix(body.Expires, 0).UTC(), body.Organisation,
		identity.ID(body.Root), body.Consortium, body.Name, k,
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrToken, err)
	}
	if now.After(t.Expires) {
		return nil, fmt.Errorf("%w: it was valid until %s", ErrInvited, t.Expires.Format(time.RFC3339))
	}
	return t, nil
}

func (t *Token) check() error {
	names := []string{t.Organisation, t.Name}
	if t.Consortium != "" || t.Kind == ForOrganisation {
		names = append(names, t.Consortium)
	}
	for _, n := range names {
		if err := identity.CheckName(n); err != nil {
			return err
		}
	}
	if t.Kind != ForSite && t.Kind != ForOrganisation {
		return fmt.Errorf("kind %.20q: expected %s or %s", t.Kind, ForSite, ForOrganisation)
	}
	if _, err := t.Inviter.Public(); err != nil {
		return err
	}
	if t.Root != "" {
		if _, err := t.Root.Public(); err != nil {
			return err
		}
	}
	if len(t.Addrs) == 0 {
		return errors.New("addresses: none: expected at least one at which the inviting site is reached")
	}
	return identity.CheckAddrs(t.Addrs)
}
