package robust

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGolden holds every rule to bytes that were written down once: the same on
// every machine and by every version, or old rounds could not be recomputed. `just
// verify` runs it for arm64 as well. With HEDGEROW_GOLDEN=write it writes them down.
func TestGolden(t *testing.T) {
	file := filepath.Join("testdata", "golden.txt")
	var got strings.Builder
	for _, rule := range All() {
		for _, c := range []struct{ n, d int }{{7, 3}, {11, 257}, {20, 2500}, {30, 64}} {
			updates := golden(c.n, c.d)
			res, err := Run(rule, most(t, rule, c.n)*2/3, 3, updates)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			for _, v := range res.Update {
				h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
			}
			fmt.Fprintf(&got, "%s %d %d clipped %d frozen %d %x\n", rule.About().Name, c.n, c.d, res.Clipped, res.Frozen, h.Sum(nil)[:16])
		}
	}
	if os.Getenv("HEDGEROW_GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got.String())) {
		t.Errorf("results differ from %s; now:\n%s", file, &got)
	}
}

// golden is updates of all sizes: alike, far away, too long, and one that is not
// finite. Its floats are not all whole numbers of 1/Unit.
func golden(n, d int) [][]float32 {
	r := rand.New(rand.NewPCG(uint64(n), uint64(d)))
	updates := asFloats(rows(r, n, d, Unit/32, Unit/64))
	for i, u := range updates {
		for j := range u {
			u[j] += float32(r.Uint32()) / (1 << 60)
			if i%5 == 1 {
				u[j] *= -7
			}
		}
	}
	updates[n-1][0] = float32(math.NaN())
	updates[n-2][d-1] = 3e38
	return updates
}
