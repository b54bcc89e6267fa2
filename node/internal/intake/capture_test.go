package intake

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

var order = map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian}

type record struct {
	sec, frac, orig uint32
	data            string
}

// classic writes a pcap file.
func classic(o binary.AppendByteOrder, magic, link uint32, records ...record) []byte {
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(o.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = o.AppendUint32(o.AppendUint32(b, 65535), link)
	for _, r := range records {
		for _, v := range []uint32{r.sec, r.frac, uint32(len(r.data)), r.orig} {
			b = o.AppendUint32(b, v)
		}
		if magic == magicModified {
			b = append(b, make([]byte, 8)...)
		}
		b = append(b, r.data...)
	}
	return b
}

func blockOf(o binary.AppendByteOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := o.AppendUint32(nil, kind)
	b = o.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return o.AppendUint32(b, uint32(len(body)+12))
}

func sectionOf(o binary.AppendByteOrder) []byte {
	b := o.AppendUint32(nil, byteOrderMagic)
	b = o.AppendUint16(o.AppendUint16(b, 1), 0)
	return blockOf(o, blockSection, o.AppendUint64(b, ^uint64(0)))
}

func ifaceOf(o binary.AppendByteOrder, link uint16, options ...byte) []byte {
	b := o.AppendUint16(o.AppendUint16(nil, link), 0)
	return blockOf(o, blockInterface, append(o.AppendUint32(b, 0), options...))
}

func packetOf(o binary.AppendByteOrder, iface uint32, ticks uint64, orig uint32, data string) []byte {
	b := o.AppendUint32(nil, iface)
	for _, v := range []uint32{uint32(ticks >> 32), uint32(ticks), uint32(len(data)), orig} {
		b = o.AppendUint32(b, v)
	}
	return blockOf(o, blockPacket, append(b, data...))
}

// readAll returns copies of all packets and the error that ended the capture.
func readAll(name string, b []byte) (all []Packet, err error) {
	c, err := newCapture(name, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	for {
		p, err := c.Next()
		if err != nil {
			return all, err
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
}

func TestPcap(t *testing.T) {
	for name, o := range order {
		for _, c := range []struct {
			magic uint32
			ns    int64
		}{{magicMicro, 7000}, {magicNano, 7}, {magicModified, 7000}} {
			b := classic(o, c.magic, 113|0x04000000, record{100, 7, 60, "abc"}, record{101, 0, 1, "defg"})
			all, err := readAll(name, b)
			if !errors.Is(err, io.EOF) || len(all) != 2 {
				t.Fatalf("%s %x: got %d packets and %v, expected 2 and the end", name, c.magic, len(all), err)
			}
			p := all[0]
			if !p.At.Equal(time.Unix(100, c.ns)) || p.Link != softplane.LinuxSLL || string(p.Data) != "abc" || p.OrigLen != 60 {
				t.Errorf("%s %x: got %+v", name, c.magic, p)
			}
			if all[1].OrigLen != 4 {
				t.Errorf("%s %x: length on the wire below what was kept: got %d, expected 4", name, c.magic, all[1].OrigLen)
			}
		}
	}
}

func TestPcapng(t *testing.T) {
	nano := []byte{9, 0, 1, 0, 9, 0, 0, 0}
	nanoBig := []byte{0, 9, 0, 1, 9, 0, 0, 0}
	binaryTime := []byte{9, 0, 1, 0, 0x81, 0, 0, 0, 14, 0, 8, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	l, g := order["little"], order["big"]
	file := bytes.Join([][]byte{
		sectionOf(l), ifaceOf(l, 1), ifaceOf(l, 101, nano...), ifaceOf(l, 1, binaryTime...),
		packetOf(l, 1, 5_000_000_007, 99, "raw"),
		blockOf(l, 0xbad, []byte("a block that nobody knows")),
		packetOf(l, 0, 6_000_001, 3, "eth"),
		packetOf(l, 2, 3, 3, "bin"),
		blockOf(l, blockSimple, append(l.AppendUint32(nil, 5), "simpl"...)),
		sectionOf(g), ifaceOf(g, 276, nanoBig...), packetOf(g, 0, 1, 3, "big"),
	}, nil)
	all, err := readAll("mixed", file)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("end: got %v, expected the end of the file", err)
	}
	for i, want := range []struct {
		data string
		link softplane.LinkType
		at   time.Time
		orig int
	}{
		{"raw", softplane.Raw, time.Unix(5, 7), 99},
		{"eth", softplane.Ethernet, time.Unix(6, 1000), 3},
		{"bin", softplane.Ethernet, time.Unix(101, 5e8), 3},
		{"simpl", softplane.Ethernet, time.Unix(101, 5e8), 5},
		{"big", softplane.LinuxSLL2, time.Unix(0, 1), 3},
	} {
		if i >= len(all) {
			t.Fatalf("packets: got %d, expected 5", len(all))
		}
		p := all[i]
		if string(p.Data) != want.data || p.Link != want.link || !p.At.Equal(want.at) || p.OrigLen != want.orig {
			t.Errorf("packet %d: got %+v (%q), expected %+v", i, p, p.Data, want)
		}
	}
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestEveryCut cuts captures at every byte: the packets ahead of the cut come,
// then an end or one fault.
func TestEveryCut(t *testing.T) {
	l := order["little"]
	pcapFile := classic(l, magicMicro, 1, record{1, 0, 10, "0123456789"}, record{2, 0, 5, "01234"})
	ng := bytes.Join([][]byte{sectionOf(l), ifaceOf(l, 1), packetOf(l, 0, 1, 10, "0123456789"), packetOf(l, 0, 2, 5, "01234")}, nil)
	for name, c := range map[string]struct {
		whole   []byte
		packets func(cut int) int
		ends    []int // cuts at which the file seems whole
	}{
		"pcap":   {pcapFile, func(n int) int { return btoi(n >= 24+26) + btoi(n >= 24+26+21) }, []int{24, 24 + 26, len(pcapFile)}},
		"pcapng": {ng, func(n int) int { return btoi(n >= 28+20+44) + btoi(n >= 28+20+44+40) }, []int{28, 48, 48 + 44, len(ng)}},
	} {
		for cut := range len(c.whole) + 1 {
			all, err := readAll(name, c.whole[:cut])
			if want := c.packets(cut); len(all) != want {
				t.Errorf("%s cut at %d: got %d packets, expected %d", name, cut, len(all), want)
			}
			whole := false
			for _, e := range c.ends {
				whole = whole || e == cut
			}
			var fault *FaultError
			if whole != errors.Is(err, io.EOF) || !whole && !errors.As(err, &fault) {
				t.Errorf("%s cut at %d: got %v, expected the end: %v", name, cut, err, whole)
			}
			if fault != nil && (fault.Offset > int64(cut) || fault.Path != name) {
				t.Errorf("%s cut at %d: fault in %s at byte %d", name, cut, fault.Path, fault.Offset)
			}
		}
		z := zipped(t, c.whole)
		if all, err := readAll(name, z); len(all) != 2 || !errors.Is(err, io.EOF) {
			t.Errorf("%s zipped: got %d packets and %v, expected 2 and the end", name, len(all), err)
		}
		for cut := 2; cut < len(z); cut++ {
			_, err := readAll(name, z[:cut])
			var fault *FaultError
			if !errors.As(err, &fault) || !fault.Zipped {
				t.Errorf("%s zipped, cut at %d: got %v, expected a fault", name, cut, err)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestFaultIsClearAndStays(t *testing.T) {
	b := classic(order["little"], magicMicro, 1, record{1, 0, 10, "0123456789"}, record{2, 0, 5, "01234"})
	c, err := newCapture("a.pcap", bytes.NewReader(b[:len(b)-2]), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	const want = "capture a.pcap: byte 50: packet data cut off: 3 bytes left, expected 5; the capture was not finished or not copied whole"
	for range 2 {
		if _, err := c.Next(); err == nil || err.Error() != want {
			t.Errorf("got %v, expected %s", err, want)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	l := order["little"]
	for _, c := range []struct{ content, want string }{
		{"", "the file has 0 bytes"},
		{"\x7fELF\x02\x01\x01", "found an ELF program"},
		{"PK\x03\x04....", "found a zip archive"},
		{"{\"ts\":1}", "found JSON text"},
		{"#separator \\x09", "found a Zeek log"},
		{"hello, this is prose", "found text"},
		{"\x00\x01\x02\x03\xff", "found unknown data beginning with 00 01 02 03"},
		{string(classic(l, magicMicro, 1)[:20]), "pcap header cut off: 20 bytes left, expected 24"},
		{string(append(l.AppendUint32(nil, magicMicro), 9, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)), "pcap version 9, expected 2"},
		{string(zipped(t, []byte("{} not a capture"))), "found JSON text"},
		{"\x1f\x8bgarbage", "gzip header"},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenCapture(path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: got %v, expected %q and the path", c.content, err, c.want)
		}
	}
	if _, err := OpenCapture(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v, expected %v", err, os.ErrNotExist)
	}
	if _, err := OpenCapture(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: got %v, expected that it is one", err)
	}
}

// TestClaimsDoNotAllocate feeds lengths of gigabytes.
func TestClaimsDoNotAllocate(t *testing.T) {
	l := order["little"]
	huge := classic(l, magicMicro, 1)
	huge = append(huge, bytes.Repeat([]byte{0xff}, 16)...)
	ng := append(sectionOf(l), ifaceOf(l, 1)...)
	epb := packetOf(l, 0, 1, 3, "abc")
	l2 := bytes.Clone(epb)
	binary.LittleEndian.PutUint32(l2[8+12:], 0xfffffff0)
	block := bytes.Clone(epb)
	binary.LittleEndian.PutUint32(block[4:], 0xfffffff0)
	for name, b := range map[string][]byte{
		"pcap packet": huge, "pcapng packet": append(bytes.Clone(ng), l2...), "pcapng block": append(bytes.Clone(ng), block...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readAll(name, b)
		runtime.ReadMemStats(&after)
		var fault *FaultError
		if used := after.TotalAlloc - before.TotalAlloc; !errors.As(err, &fault) || used > 1<<20 {
			t.Errorf("%s: got %v after %d bytes of memory, expected a fault and less than 1 MiB", name, err, used)
		}
	}
}

func TestPcapngFaults(t *testing.T) {
	l := order["little"]
	head := append(sectionOf(l), ifaceOf(l, 1)...)
	end := bytes.Clone(packetOf(l, 0, 1, 3, "abc"))
	end[len(end)-4]++
	many := bytes.Clone(sectionOf(l))
	for range maxInterfaces + 1 {
		many = append(many, ifaceOf(l, 1)...)
	}
	mark := sectionOf(l)
	mark[8]++
	version := sectionOf(l)
	version[12] = 9
	odd := bytes.Clone(head)
	odd = append(odd, 6, 0, 0, 0, 33, 0, 0, 0)
	for _, c := range []struct {
		name, want string
		file       []byte
	}{
		{"interface", "packet of interface 7, expected one of the 1", append(bytes.Clone(head), packetOf(l, 7, 1, 3, "abc")...)},
		{"no interface", "one of the 0", append(sectionOf(l), packetOf(l, 0, 1, 3, "abc")...)},
		{"trailing length", "expected both to be equal", append(bytes.Clone(head), end...)},
		{"interfaces", "more than 4096 interfaces", many},
		{"byte order", "byte order mark", mark},
		{"version", "pcapng version 9, expected 1", version},
		{"odd length", "expected a multiple of four", odd},
		{"resolution", "time resolution", append(sectionOf(l), ifaceOf(l, 1, 9, 0, 1, 0, 20, 0, 0, 0)...)},
		{"description", "expected at most 65536", append(sectionOf(l), ifaceOf(l, 1, make([]byte, 70000)...)...)},
		{"small packet block", "body has 4 bytes left, expected 20", append(bytes.Clone(head), blockOf(l, blockPacket, make([]byte, 4))...)},
	} {
		if _, err := readAll(c.name, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, expected %q", c.name, err, c.want)
		}
	}
}

func TestTimesThatFitNothing(t *testing.T) {
	l := order["little"]
	file := bytes.Join([][]byte{sectionOf(l), ifaceOf(l, 1), ifaceOf(l, 1, 9, 0, 1, 0, 0, 0, 0, 0),
		packetOf(l, 0, 42_000_000, 1, "a"), packetOf(l, 1, ^uint64(0), 1, "b")}, nil)
	all, err := readAll("times", file)
	if !errors.Is(err, io.EOF) || len(all) != 2 || !all[1].At.Equal(time.Unix(42, 0)) {
		t.Errorf("got %+v and %v, expected the time of the packet before", all, err)
	}
}

func TestProgress(t *testing.T) {
	b := zipped(t, classic(order["big"], magicNano, 1, record{1, 0, 3, "abc"}))
	path := filepath.Join(t.TempDir(), "x.pcap.gz")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCapture(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = c.Next()
	}
	if !errors.Is(err, io.EOF) || c.Size() != int64(len(b)) || c.Offset() != c.Size() || c.Format() != "pcap" {
		t.Errorf("got %v at %d of %d (%s), expected the end at %d", err, c.Offset(), c.Size(), c.Format(), len(b))
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestReadPacketTruth(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "truth.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := ReadPacketTruth(write("index;label\r\n1;0\r\n2;1\r\n\r\n3, 0\n"))
	if err != nil || len(got) != 3 || got[0] || !got[1] || got[2] {
		t.Errorf("got %v and %v, expected false true false", got, err)
	}
	for text, want := range map[string]string{
		"":             "no line of the form",
		"1;0\n3;0\n":   "line 2: index 3: expected 2",
		"1;0\n2;yes\n": "line 2: \"2;yes\": expected index;label",
		"2;0\n":        "index 2: expected 1",
	} {
		if _, err := ReadPacketTruth(write(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, expected %q", text, err, want)
		}
	}
}

func FuzzCapture(f *testing.F) {
	l, g := order["little"], order["big"]
	f.Add(classic(l, magicMicro, 1, record{1, 2, 3, "abc"}))
	f.Add(classic(g, magicModified, 113, record{1, 2, 3, "abc"}))
	f.Add(bytes.Join([][]byte{sectionOf(l), ifaceOf(l, 1, 9, 0, 1, 0, 9, 0, 0, 0), packetOf(l, 0, 9, 9, "abcd"),
		blockOf(l, blockSimple, append(l.AppendUint32(nil, 5), "simpl"...))}, nil))
	f.Add(bytes.Join([][]byte{sectionOf(g), ifaceOf(g, 101), blockOf(g, blockPacketOld, make([]byte, 24))}, nil))
	f.Add(zipped(f, classic(l, magicNano, 101, record{1, 2, 3, "abc"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := newCapture("fuzz", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p, err := softplane.Open(softplane.Options{MaxFlows: 8})
		if err != nil {
			t.Fatal(err)
		}
		for range 1 << 16 {
			pkt, err := c.Next()
			if err != nil {
				var fault *FaultError
				if !errors.Is(err, io.EOF) && !errors.As(err, &fault) {
					t.Errorf("got %T %v, expected the end or a fault", err, err)
				}
				return
			}
			if len(pkt.Data) > MaxPacket || pkt.OrigLen < len(pkt.Data) {
				t.Errorf("packet of %d bytes, %d on the wire", len(pkt.Data), pkt.OrigLen)
			}
			p.Captured(pkt.Link, pkt.Data, pkt.OrigLen, pkt.At)
		}
	})
}

func FuzzPacketTruth(f *testing.F) {
	f.Add("1;0\n2;1\n")
	f.Add("index,label\r\n1, 0\r\n")
	f.Add("\n;\n-1;1")
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := readTruth("fuzz", strings.NewReader(text))
		if (err == nil) != (len(labels) > 0) {
			t.Errorf("got %d labels and %v, expected either labels or an error", len(labels), err)
		}
		if lines := strings.Count(text, "\n") + 1; len(labels) > lines {
			t.Errorf("got %d labels from %d lines", len(labels), lines)
		}
	})
}
