package federation_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// A member lives once, whoever keeps its time.
func TestSteppedMemberDoesNotRun(t *testing.T) {
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := federation.New(federation.Options{Site: "alder", Key: k})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Steps(t.Context(), nil); err == nil {
		t.Error("stepped without a function for what comes later")
	}
	s, h, err := m.Steps(t.Context(), func(time.Duration, func()) {})
	if err != nil || h == nil {
		t.Fatal(err)
	}
	s.Step()
	if err := m.Run(t.Context()); err == nil {
		t.Error("a stepped member ran")
	}
}
