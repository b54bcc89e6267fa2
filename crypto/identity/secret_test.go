package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
)

func secret(t *testing.T, s string) Secret {
	t.Helper()
	out, err := NewSecret([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSecretNeverPrints(t *testing.T) {
	s := secret(t, "correct horse battery")
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("s", "s", s, "p", &s)
	_, _ = fmt.Fprintf(&buf, "%v %+v %#v %s %x %d %q %v", s, s, s, s, s, s, s, struct{ S Secret }{s})
	b, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	out := buf.String() + string(b)
	for _, part := range []string{"correct", fmt.Sprintf("%x", "correct"), "99 111 114 114"} {
		if strings.Contains(out, part) {
			t.Errorf("the secret is printed (%s): %s", part, out)
		}
	}
	if _, err := NewSecret([]byte("short")); err == nil {
		t.Error("a passphrase of five bytes was taken")
	}
}

func TestLockedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k", "organisation.key")
	pass := secret(t, "correct horse battery")
	k, err := CreateFile(path, pass)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, k.priv.Seed()) || !strings.Contains(string(raw), sealedType) {
		t.Fatalf("the file: %q, %v", raw, err)
	}
	for name, p := range map[string]Secret{"none": {}, "another": secret(t, "wrong horse battery")} {
		if _, err := LoadFile(path, p); !errors.Is(err, ErrLocked) {
			t.Errorf("with %s passphrase: %v, expected ErrLocked", name, err)
		}
	}
	got, err := LoadFile(path, pass)
	if err != nil || got.ID() != k.ID() {
		t.Fatalf("load: %v, %v", got, err)
	}
	if err := Lock(path, pass, Secret{}); err != nil {
		t.Fatal(err)
	}
	got, err = LoadFile(path, Secret{})
	if err != nil || got.ID() != k.ID() {
		t.Fatalf("unlocked: %v, %v", got, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: expected 0600", st.Mode(), err)
	}
}

// A sealed key that asks for a terabyte of memory is refused before it is paid.
func TestSealedKeyCosts(t *testing.T) {
	pass := secret(t, "correct horse battery")
	b, err := lock(testKey(t, 1), pass, cost{time: 1, memory: 8 << 10, threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	var s sealedKey
	if err := canon.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(*sealedKey){
		func(s *sealedKey) { s.Memory = 1 << 31 }, func(s *sealedKey) { s.Time = 1 << 30 },
		func(s *sealedKey) { s.Threads = 0 }, func(s *sealedKey) { s.Nonce = s.Nonce[:3] },
	} {
		bad := s
		spoil(&bad)
		b, err := canon.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unlock(b, pass); err == nil || errors.Is(err, ErrLocked) {
			t.Errorf("%+v: %v, expected a refusal", bad, err)
		}
	}
	if k, err := unlock(b, pass); err != nil || k.ID() != testKey(t, 1).ID() {
		t.Errorf("the unspoilt one: %v, %v", k, err)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	if s, err := CredentialSecret(dir); err != nil || !s.None() {
		t.Errorf("no credential: %v, %v", s, err)
	}
	if s, err := CredentialSecret(""); err != nil || !s.None() {
		t.Errorf("no folder: %v, %v", s, err)
	}
	k := testKey(t, 4)
	raw, err := encodeKey(k, Secret{})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{CredentialPassphrase: []byte("correct horse battery\n"), CredentialKey: raw} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	s, err := CredentialSecret(dir)
	if err != nil || string(s.b) != "correct horse battery" {
		t.Errorf("passphrase: %q, %v", s.b, err)
	}
	got, err := CredentialSiteKey(dir, s)
	if err != nil || got.ID() != k.ID() {
		t.Errorf("key: %v, %v", got, err)
	}
	if err := os.Chmod(filepath.Join(dir, CredentialKey), 0o404); err != nil {
		t.Fatal(err)
	}
	if _, err := CredentialSiteKey(dir, s); err == nil {
		t.Error("a credential that everybody may read was taken")
	}
}
