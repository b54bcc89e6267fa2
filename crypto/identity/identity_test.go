package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testKey(t *testing.T, b byte) *Key {
	t.Helper()
	k, err := Generate(bytes.NewReader(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIDRoundTrip(t *testing.T) {
	for b := range byte(32) {
		k := testKey(t, b)
		id, err := ParseID(string(k.ID()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(id), "12D3KooW") || len(id) != 52 {
			t.Errorf("id %q: expected 52 characters, beginning with 12D3KooW", id)
		}
		pub, err := id.Public()
		if err != nil || !pub.Equal(k.priv.Public()) {
			t.Errorf("public key of %s: %v, %v", id, pub, err)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := string(testKey(t, 1).ID())
	for _, s := range []string{"", "x", good + "1", "1" + good, good[1:], good[:51] + "0", strings.Repeat("z", 100000), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%.60q) = %q, expected an error", s, id)
		}
	}
}

func TestSignIsBound(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	msg := []byte("hello")
	sig := a.Sign("indicator", msg)
	if err := Verify(a.ID(), "indicator", msg, sig); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(sig)
	flipped[3] ^= 1
	for name, err := range map[string]error{
		"other kind":   Verify(a.ID(), "delta", msg, sig),
		"other author": Verify(b.ID(), "indicator", msg, sig),
		"other text":   Verify(a.ID(), "indicator", []byte("hullo"), sig),
		"flipped bit":  Verify(a.ID(), "indicator", msg, flipped),
		"short":        Verify(a.ID(), "indicator", msg, sig[:63]),
		"moved border": Verify(a.ID(), "indicator/1\x00h", []byte("ello"), sig),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, expected ErrSignature", name, err)
		}
	}
}

func TestKeyNeverPrints(t *testing.T) {
	k := testKey(t, 7)
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("key", "key", k)
	_, _ = fmt.Fprintf(&buf, "%v %+v %#v %s %x %d %q", k, k, k, k, k, k, k)
	for _, secret := range []string{fmt.Sprintf("%x", k.priv.Seed()), fmt.Sprintf("%d", k.priv.Seed()), fmt.Sprintf("%#v", k.priv[:4])[7:20]} {
		if strings.Contains(buf.String(), secret) {
			t.Errorf("the private half is printed: %s", buf.String())
		}
	}
}

func TestCreateLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := Load(dir); !errors.Is(err, ErrNoKey) {
		t.Fatalf("load from nothing: %v", err)
	}
	k, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir); !errors.Is(err, ErrExists) {
		t.Fatalf("second create: %v, expected ErrExists", err)
	}
	again, err := Load(dir)
	if err != nil || again.ID() != k.ID() || !bytes.Equal(again.priv, k.priv) {
		t.Fatalf("load: %v, %v; expected the key that was created", again, err)
	}
	st, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("file: %v %v, expected mode 0600", st.Mode(), err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Fatalf("left in the folder: %v %v, expected the key alone", left, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := func(t *testing.T) (dir, path string) {
		dir = t.TempDir()
		if _, err := Create(dir); err != nil {
			t.Fatal(err)
		}
		return dir, filepath.Join(dir, FileName)
	}
	cases := map[string]struct {
		spoil func(t *testing.T, path string) error
		want  string
	}{
		"readable by the group": {func(_ *testing.T, p string) error { return os.Chmod(p, 0o640) }, "chmod 600"},
		"truncated":             {func(_ *testing.T, p string) error { return os.Truncate(p, 40) }, "one PEM block"},
		"empty":                 {func(_ *testing.T, p string) error { return os.Truncate(p, 0) }, "one PEM block"},
		"huge":                  {func(_ *testing.T, p string) error { return os.Truncate(p, 1<<20) }, "more than 4096 bytes"},
		"a folder": {func(_ *testing.T, p string) error {
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o700))
		}, "regular file"},
		"a link": {func(t *testing.T, p string) error {
			_, other := good(t)
			return errors.Join(os.Remove(p), os.Symlink(other, p))
		}, "is a link"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir, path := good(t)
			if err := c.spoil(t, path); err != nil {
				t.Fatal(err)
			}
			_, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("load: %v, expected an error with %q", err, c.want)
			}
		})
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X")
	f.Add("")
	f.Add("1111")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		pub, err := id.Public()
		if err != nil || IDOf(pub) != id {
			t.Fatalf("%q parses but does not come back: %v", s, err)
		}
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parse(b, Secret{})
		if err == nil && Verify(k.ID(), "x", b, k.Sign("x", b)) != nil {
			t.Fatal("a parsed key does not verify its own signature")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k, err := Generate(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 256)
	sig := k.Sign("indicator", msg)
	if len(sig) != ed25519.SignatureSize {
		b.Fatal("signature size")
	}
	for b.Loop() {
		if err := Verify(k.ID(), "indicator", msg, sig); err != nil {
			b.Fatal(err)
		}
	}
}
