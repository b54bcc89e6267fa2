package planetest

import (
	"io"
	"os"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// RealData is the folder of real captures, for a test that is two folders below
// the project's root. Tests that need it are skipped where it is not, save where
// nothing may be skipped.
func RealData(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HEDGEROW_DATA")
	if dir == "" {
		dir = "../../../shared/data"
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("real data: %v: set HEDGEROW_DATA to the folder that holds it", err)
		}
		t.Skipf("real data is absent (HEDGEROW_DATA): %v", err)
	}
	return dir
}

// Capture gives the frames of a file, and io.EOF after the last.
type Capture interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// OpenCapture reads a pcap or pcapng file, whatever its name says.
func OpenCapture(t testing.TB, name string) Capture {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if src, err := pcapgo.NewReader(f); err == nil {
		return src
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	src, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
