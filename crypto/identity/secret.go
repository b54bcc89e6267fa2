package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
)

// Names of systemd credentials (LoadCredential= or LoadCredentialEncrypted=) that
// a site uses: a passphrase for its key files, or the site's key itself.
const (
	CredentialPassphrase = "hedgerow-passphrase"
	CredentialKey        = "hedgerow-site-key"
)

// ErrLocked says that a key file needs a passphrase that was not given, or another one.
var ErrLocked = errors.New("identity: the key is locked")

const (
	minPassphrase = 8
	sealedType    = "HEDGEROW SEALED KEY"
	sealedKind    = "hedgerow/sealed-key/1"
)

// A Secret is a passphrase. However it is printed or logged, it shows nothing.
type Secret struct{ b []byte }

// NewSecret takes a passphrase of at least 8 bytes.
func NewSecret(b []byte) (Secret, error) {
	if len(b) < minPassphrase || len(b) > maxKeyFile {
		return Secret{}, fmt.Errorf("identity: passphrase: %d bytes: expected %d to %d; four random words are easy to type and hard to guess", len(b), minPassphrase, maxKeyFile)
	}
	return Secret{b}, nil
}

// None says that there is no passphrase.
func (s Secret) None() bool { return len(s.b) == 0 }

// Format prints nothing of the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// LogValue keeps it from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText keeps it from whatever is encoded by reflection.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// ReadSecret reads a passphrase file, without the line's end. Others may not read it.
func ReadSecret(path string) (Secret, error) {
	b, err := readPrivate(path)
	if err != nil {
		return Secret{}, fmt.Errorf("identity: passphrase: %w", err)
	}
	return NewSecret(trimEnd(b))
}

func trimEnd(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// CredentialSecret is the passphrase among systemd's credentials in dir
// ($CREDENTIALS_DIRECTORY), or no secret when there is none.
func CredentialSecret(dir string) (Secret, error) {
	b, err := readCredential(dir, CredentialPassphrase)
	if err != nil || b == nil {
		return Secret{}, err
	}
	return NewSecret(trimEnd(b))
}

// CredentialSiteKey is the site's key among systemd's credentials in dir, or nil
// when there is none.
func CredentialSiteKey(dir string, pass Secret) (*Key, error) {
	b, err := readCredential(dir, CredentialKey)
	if err != nil || b == nil {
		return nil, err
	}
	k, err := parse(b, pass)
	if err != nil {
		return nil, fmt.Errorf("identity: credential %s: %w", CredentialKey, err)
	}
	return k, nil
}

// readCredential reads one; the service manager has set its access, which may
// show as the group's, but never everybody's.
func readCredential(dir, name string) ([]byte, error) {
	if dir == "" {
		return nil, nil
	}
	b, err := readFile(filepath.Join(dir, name), 0o007)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("identity: credential: %w", err)
	}
	return b, nil
}

// cost is how hard a passphrase is to try: Argon2id of RFC 9106.
type cost struct {
	time, memory uint32 // passes, KiB
	threads      uint8
}

// Of RFC 9106's two recommendations the one for little memory: gateways are small.
var usualCost = cost{time: 3, memory: 64 << 10, threads: 4}

// sealedKey is a key file's content under a passphrase. The costs are read back
// from it, within bounds: a file must not be able to stop a machine.
type sealedKey struct {
	Salt    []byte `cbor:"1,keyasint"`
	Time    uint32 `cbor:"2,keyasint"`
	Memory  uint32 `cbor:"3,keyasint"`
	Threads uint8  `cbor:"4,keyasint"`
	Nonce   []byte `cbor:"5,keyasint"`
	Box     []byte `cbor:"6,keyasint"` // the seed
}

func lock(k *Key, pass Secret, c cost) ([]byte, error) {
	s := sealedKey{Salt: make([]byte, 16), Time: c.time, Memory: c.memory, Threads: c.threads, Nonce: make([]byte, chacha20poly1305.NonceSizeX)}
	for _, b := range [][]byte{s.Salt, s.Nonce} {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
	}
	aead, err := chacha20poly1305.NewX(argon2.IDKey(pass.b, s.Salt, s.Time, s.Memory, s.Threads, chacha20poly1305.KeySize))
	if err != nil {
		return nil, err
	}
	s.Box = aead.Seal(nil, s.Nonce, k.priv.Seed(), []byte(sealedKind))
	return canon.Marshal(s)
}

func unlock(b []byte, pass Secret) (*Key, error) {
	var s sealedKey
	if err := canon.Unmarshal(b, &s); err != nil {
		return nil, errors.New("the PEM block holds no sealed key")
	}
	if len(s.Salt) != 16 || len(s.Nonce) != chacha20poly1305.NonceSizeX || s.Time == 0 || s.Time > 16 ||
		s.Memory < 8<<10 || s.Memory > 512<<10 || s.Threads == 0 || s.Threads > 16 {
		return nil, errors.New("the sealed key asks for costs that this version does not pay")
	}
	if pass.None() {
		return nil, fmt.Errorf("%w: give its passphrase by --passphrase-file, or as the systemd credential %s", ErrLocked, CredentialPassphrase)
	}
	aead, err := chacha20poly1305.NewX(argon2.IDKey(pass.b, s.Salt, s.Time, s.Memory, s.Threads, chacha20poly1305.KeySize))
	if err != nil {
		return nil, err
	}
	seed, err := aead.Open(nil, s.Nonce, s.Box, []byte(sealedKind))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: the passphrase does not fit", ErrLocked)
	}
	return newKey(ed25519.NewKeyFromSeed(seed)), nil
}

// Lock writes a key file anew under a passphrase, or without one: the file is
// replaced whole.
func Lock(path string, old, pass Secret) error {
	k, err := LoadFile(path, old)
	if err != nil {
		return err
	}
	b, err := encodeKey(k, pass)
	if err != nil {
		return fmt.Errorf("identity: lock key: %w", err)
	}
	if err := Replace(path, b); err != nil {
		return fmt.Errorf("identity: lock key: %w", err)
	}
	return nil
}
