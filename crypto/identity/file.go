package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// FileName is the key's file inside a site's state folder: a PEM block of PKCS #8.
const FileName = "site.key"

// maxKeyFile bounds what is read; a PKCS #8 Ed25519 key has about 120 bytes.
const maxKeyFile = 4096

// Errors that a caller may test for.
var (
	ErrNoKey  = errors.New("identity: there is no key")
	ErrExists = errors.New("identity: there is a key already")
)

// Create makes a new key and its file in dir; see CreateFile.
func Create(dir string) (*Key, error) { return CreateFile(filepath.Join(dir, FileName), Secret{}) }

// CreateFile makes a new key and its file, under a passphrase unless pass is none.
// The folder is made with mode 0700 when it is missing. The file appears whole or
// not at all; one that exists is never replaced: ErrExists.
func CreateFile(path string, pass Secret) (*Key, error) {
	k, err := Generate(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := k.SaveNew(path, pass); err != nil {
		return nil, err
	}
	return k, nil
}

// SaveNew writes the key to a file of its own, as CreateFile does.
func (k *Key) SaveNew(path string, pass Secret) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("identity: create key: %w", err)
	}
	b, err := encodeKey(k, pass)
	if err != nil {
		return fmt.Errorf("identity: create key: %v", err)
	}
	err = writeNew(path, b)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w at %s: load it, or move it away to make a new one", ErrExists, path)
	}
	if err != nil {
		return fmt.Errorf("identity: create key: %w", err)
	}
	return nil
}

// encodeKey is a PEM block: PKCS #8, or sealed under a passphrase.
func encodeKey(k *Key, pass Secret) ([]byte, error) {
	if !pass.None() {
		b, err := lock(k, pass, usualCost)
		return pem.EncodeToMemory(&pem.Block{Type: sealedType, Bytes: b}), err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.priv)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// Load reads the key that Create made in dir; see LoadFile.
func Load(dir string) (*Key, error) { return LoadFile(filepath.Join(dir, FileName), Secret{}) }

// LoadFile reads a key file. It refuses a file that others may read, a link, and
// whatever is not exactly one Ed25519 key; it returns ErrNoKey when there is
// none, and ErrLocked when the passphrase is missing or wrong.
func LoadFile(path string, pass Secret) (*Key, error) {
	b, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s", ErrNoKey, path)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: load key: %w", err)
	}
	k, err := parse(b, pass)
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("load key %s: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: load key %s: %v; restore it from a backup, or move it away and create a new one (the other sites must then list the new id)", path, err)
	}
	return k, nil
}

// parse reads one PEM block and nothing after it. Its errors never quote the input.
func parse(b []byte, pass Secret) (*Key, error) {
	block, rest := pem.Decode(b)
	if block != nil && block.Type == sealedType && len(rest) == 0 {
		return unlock(block.Bytes, pass)
	}
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, errors.New("expected one PEM block \"PRIVATE KEY\" and nothing else")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block holds no PKCS #8 key")
	}
	priv, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("expected an Ed25519 key, found %T", key)
	}
	return newKey(priv), nil
}

func readPrivate(path string) ([]byte, error) { return readFile(path, 0o077) }

// readFile reads a small regular file that grants none of the forbidden permissions.
func readFile(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a link: expected a regular file", path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a regular file, found %s", path, st.Mode().Type())
	}
	if perm := st.Mode().Perm(); perm&forbidden != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others use the key: run chmod 600 %s, and make a new key if somebody may have read it", path, perm, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s: more than %d bytes: expected one key", path, maxKeyFile)
	}
	return b, err
}

// writeNew writes a file of mode 0600 that exists only once it is whole and on
// disk: a hard link never replaces, as a rename would.
func writeNew(path string, b []byte) error {
	tmp, err := writeTemp(filepath.Dir(path), b)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Replace writes a file of mode 0600 in the place of the one at path, if there is
// one: a crash leaves the old content or the new, whole.
func Replace(path string, b []byte) error {
	tmp, err := writeTemp(filepath.Dir(path), b)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes a file of mode 0600 under a name of its own, down to the disk.
func writeTemp(dir string, b []byte) (path string, err error) {
	tmp, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return tmp.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
