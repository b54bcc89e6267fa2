package intake

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// realData is the folder of real data.
func realData(t *testing.T) string {
	t.Helper()
	return realdata.Dir(t, "modbus-lemay")
}

// counted is what the manifest of the data says of a capture; it was made by
// another reader.
type counted struct{ packets, fault string }

func manifest(t *testing.T, dir string) map[string]counted {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "PCAP-MANIFEST.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	col := map[string]int{}
	for i, name := range rows[0] {
		col[name] = i
	}
	out := map[string]counted{}
	for _, r := range rows[1:] {
		out[r[col["path"]]] = counted{r[col["packets"]], r[col["error"]]}
	}
	return out
}

// tally sums what became of captures.
type tally struct {
	files, packets, bytes, flows, ends uint64
	malformed, links                   map[string]uint64
	faults                             []string
}

func (s *tally) String() string {
	return fmt.Sprintf("%d files, %d packets, %d IP bytes, %d flows, %d ends; malformed %v; link types not understood %v; %d files at fault",
		s.files, s.packets, s.bytes, s.flows, s.ends, s.malformed, s.links, len(s.faults))
}

func (s *tally) replay(t *testing.T, path string) (packets int) {
	t.Helper()
	c, err := OpenCapture(path)
	if err != nil {
		s.faults = append(s.faults, err.Error())
		return 0
	}
	p, openErr := softplane.Open(softplane.Options{})
	if openErr != nil {
		t.Fatal(openErr)
	}
	end := func(e *dataplane.Event) {
		if e.Kind == dataplane.EventEnd {
			s.ends++
		}
	}
	for {
		var pkt Packet
		if pkt, err = c.Next(); err != nil {
			break
		}
		if !pkt.Link.Supported() {
			s.links[strconv.Itoa(int(pkt.Link))]++
		}
		if !p.Captured(pkt.Link, pkt.Data, pkt.OrigLen, pkt.At) {
			t.Errorf("%s: packet %d dropped in monitor mode", path, packets)
		}
		if packets++; packets%4096 == 0 {
			p.Drain(end)
		}
	}
	if !errors.Is(err, io.EOF) {
		s.faults = append(s.faults, err.Error())
	}
	p.Flush()
	p.Drain(end)
	s.sum(t, path, p, packets)
	return packets
}

func (s *tally) sum(t *testing.T, path string, p *softplane.Plane, packets int) {
	st, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if st.Packets != uint64(packets) || st.Flows != 0 || st.EventsLost != 0 || st.Dropped+st.WouldDrop != 0 {
		t.Errorf("%s: %d packets shown, stats %+v", path, packets, st)
	}
	s.files++
	s.packets += st.Packets
	s.bytes += st.Bytes
	s.flows += st.FlowsTotal
	for kind, n := range st.Malformed {
		s.malformed[kind] += n
	}
}

func TestRealCaptures(t *testing.T) {
	dir := realData(t)
	known := manifest(t, dir)
	for _, folder := range []string{"pcap-tcpdump-tests", "pcap-zeek-traces", "slips", "modbus-lemay"} {
		s := &tally{malformed: map[string]uint64{}, links: map[string]uint64{}}
		err := filepath.WalkDir(filepath.Join(dir, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			want, ok := known[filepath.ToSlash(rel)]
			if !ok {
				return nil // not a capture: the manifest names them all
			}
			got := s.replay(t, path)
			if want.fault == "" && strconv.Itoa(got) != want.packets {
				t.Errorf("%s: got %d packets, the manifest says %s", rel, got, want.packets)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.files == 0 || s.ends != s.flows {
			t.Errorf("%s: %d files; %d ends of %d flows", folder, s.files, s.ends, s.flows)
		}
		slices.Sort(s.faults)
		t.Logf("%s: %s", folder, s)
		for _, f := range s.faults {
			t.Log("  ", strings.ReplaceAll(f, dir+string(filepath.Separator), ""))
		}
	}
}

func TestRealTruthFitsItsCapture(t *testing.T) {
	dir := filepath.Join(realData(t), "modbus-lemay")
	captures, err := filepath.Glob(filepath.Join(dir, "*.pcap"))
	if err != nil || len(captures) != 3 {
		t.Fatalf("captures: got %d and %v, expected 3", len(captures), err)
	}
	for _, path := range captures {
		labels, err := ReadPacketTruth(strings.TrimSuffix(path, ".pcap") + "_labeled.csv")
		if err != nil {
			t.Error(err)
			continue
		}
		s := &tally{malformed: map[string]uint64{}, links: map[string]uint64{}}
		if got := s.replay(t, path); got != len(labels) || !slices.Contains(labels, true) || !slices.Contains(labels, false) {
			t.Errorf("%s: %d packets and %d labels, expected as many, of both kinds", path, got, len(labels))
		}
	}
}
