package flowlog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

const zeekHead = "#separator \\x09\n#unset_field\t-\n#empty_field\t(empty)\n#path\tconn\n#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_pkts\torig_ip_bytes\torig_bytes\tresp_pkts\tresp_ip_bytes\tresp_bytes\thistory\tconn_state\n"

// zeekLine has values that are right; fields to change are given by place.
func zeekLine(change map[int]string) string {
	v := strings.Split("1700000000.5\t10.0.0.1\t4000\t198.51.100.2\t443\ttcp\t1.5\t5\t700\t400\t4\t900\t600\tShADadFf\tSF", "\t")
	for i, s := range change {
		v[i] = s
	}
	return strings.Join(v, "\t") + "\n"
}

// TestBadLines: each broken line is refused by name, with its number, its field
// and what was expected, and the lines around it are used.
func TestBadLines(t *testing.T) {
	argus := "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,SrcPkts,Label\n"
	nf := "ts,te,td,sa,da,sp,dp,pr,flg,ipkt,ibyt,opkt,obyt\n"
	west := "sAddress,rAddress,protocol,start,end,sPackets,rPackets,sBytesSum,rBytesSum,NST_M_Label\n"
	cic := " Destination Port, Flow Duration, Total Fwd Packets, Total Backward Packets, Label\n"
	eve := `{"timestamp":"2026-01-02T00:00:00Z","flow_id":1,"event_type":"flow","src_ip":"10.0.0.1","src_port":1,"dest_ip":"10.0.0.2","dest_port":2,"proto":"%s","flow":{"pkts_toserver":%s,"pkts_toclient":1,"bytes_toserver":60,"bytes_toclient":60,"start":"%s","end":"2026-01-02T00:00:01Z"}}` + "\n"
	for name, c := range map[string]struct {
		text  string
		kind  Kind
		field string
		line  int
		flows int
	}{
		"zeek nan":               {zeekHead + zeekLine(nil) + zeekLine(map[int]string{6: "NaN"}) + zeekLine(nil), NoNumber, "duration", 7, 2},
		"zeek infinite":          {zeekHead + zeekLine(map[int]string{6: "+Inf"}) + zeekLine(nil), NoNumber, "duration", 6, 1},
		"zeek negative duration": {zeekHead + zeekLine(map[int]string{6: "-0.1"}) + zeekLine(nil), Negative, "duration", 6, 1},
		"zeek overflow":          {zeekHead + zeekLine(map[int]string{8: "18446744073709551616"}) + zeekLine(nil), Range, "orig_ip_bytes", 6, 1},
		"zeek packets overflow":  {zeekHead + zeekLine(map[int]string{7: "4294967296"}) + zeekLine(nil), Range, "orig_pkts", 6, 1},
		"zeek half a packet":     {zeekHead + zeekLine(map[int]string{7: "1.5"}) + zeekLine(nil), NoNumber, "orig_pkts", 6, 1},
		"zeek address":           {zeekHead + zeekLine(map[int]string{1: "10.0.0.256"}) + zeekLine(nil), NoAddr, "id.orig_h", 6, 1},
		"zeek port":              {zeekHead + zeekLine(map[int]string{4: "65536"}) + zeekLine(nil), Range, "id.resp_p", 6, 1},
		"zeek time":              {zeekHead + zeekLine(map[int]string{0: "yesterday"}) + zeekLine(nil), NoTime, "ts", 6, 1},
		"zeek far future":        {zeekHead + zeekLine(map[int]string{0: "9999999999.0"}) + zeekLine(nil), NoTime, "ts", 6, 1},
		"zeek no time":           {zeekHead + zeekLine(map[int]string{0: "-"}) + zeekLine(nil), Missing, "ts", 6, 1},
		"zeek fewer values":      {zeekHead + "1700000000.5\t10.0.0.1\n" + zeekLine(nil), Broken, "", 6, 1},
		"zeek half line":         {zeekHead + zeekLine(nil) + strings.TrimSuffix(zeekLine(nil), "F\n"), Half, "", 7, 1},
		"zeek no header":         {"#separator \\x09\n" + zeekLine(nil) + strings.TrimPrefix(zeekHead, "#separator \\x09\n") + zeekLine(nil), Broken, "", 2, 1},
		"zeek json":              {`{"ts":1700000000.5,"id.orig_h":"10.0.0.1","proto":"tcp"` + "\n" + `{"ts":1,"id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","id.orig_p":1,"id.resp_p":2,"proto":"udp","orig_pkts":1,"resp_pkts":0}` + "\n", Broken, "", 1, 1},
		"long line":              {zeekHead + strings.Repeat("x", MaxLine+1) + "\n" + zeekLine(nil), Long, "", 6, 1},
		"argus time":             {argus + "2026/13/40 00:00:00,1,tcp,10.0.0.1,1,->,10.0.0.2,2,S_SA,2,120,60,1,\n2026/01/02 00:00:00.5,1,tcp,10.0.0.1,1,->,10.0.0.2,2,S_SA,2,120,60,1,\n", NoTime, "StartTime", 2, 1},
		"argus more of one side": {argus + "2026/01/02 00:00:00,1,tcp,10.0.0.1,1,->,10.0.0.2,2,S_SA,2,120,60,3,\n", Range, "SrcPkts", 2, 0},
		"nfdump packets":         {nf + "2026-01-02 00:00:00,2026-01-02 00:00:01,1,10.0.0.1,10.0.0.2,1,2,TCP,...,many,60,0,0\n", NoNumber, "ipkt", 2, 0},
		"westermo backwards":     {west + "10.0.0.1,10.0.0.2,IPV4-TCP,1678440574.5,1678440573.5,1,1,60,60,Normal\n", Negative, "end", 2, 0},
		"cic duration":           {cic + "80,-5,1,1,BENIGN\n80,5,1,1,BENIGN\n", Negative, "Flow Duration", 2, 1},
		"eve start":              {fmt.Sprintf(eve, "TCP", "1", "soon") + fmt.Sprintf(eve, "TCP", "1", "2026-01-02T00:00:00Z"), NoTime, "flow.start", 1, 1},
		"eve packets":            {fmt.Sprintf(eve, "UDP", "-1", "2026-01-02T00:00:00Z"), Negative, "flow.pkts_toserver", 1, 0},
		"eve ends ahead":         {fmt.Sprintf(eve, "UDP", "1", "2026-01-02T00:00:02Z"), Negative, "flow.end", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			flows, rep := readAll(t, "some.log", []byte(c.text), Options{})
			if len(flows) != c.flows || rep.RefusedLines() != 1 || len(rep.Faults) != 1 {
				t.Fatalf("%d flows, %d refused: expected %d and 1: %v", len(flows), rep.RefusedLines(), c.flows, rep.Words())
			}
			f := rep.Faults[0]
			if f.Kind != c.kind || f.Field != c.field || f.Line != c.line || f.Path != "some.log" || !strings.Contains(f.Error(), fmt.Sprintf("some.log: line %d: ", c.line)) || !strings.Contains(f.Error(), "expected ") {
				t.Errorf("got %v (%s), expected %s of field %q in line %d", f, f.Kind, c.kind, c.field, c.line)
			}
		})
	}
}

// TestMissingColumnsLack: a log without some columns is used; what they would
// have told is lacking, and not zero.
func TestMissingColumnsLack(t *testing.T) {
	thin := "#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\n1700000000.5\t10.0.0.1\t4000\t198.51.100.2\t443\ttcp\n"
	flows, rep := readAll(t, "conn.log", []byte(thin), Options{})
	if len(flows) != 1 {
		t.Fatal(rep.Words())
	}
	want := flow.LackPackets | flow.LackBytes | flow.LackPayload | flow.LackFlags | flow.LackHint
	if got := flows[0].Record.Lacks; got&want != want || got&(flow.LackAddrs|flow.LackPort|flow.LackClock|flow.LackProto) != 0 {
		t.Errorf("lacks %s", got)
	}
}

// TestClocks: epoch seconds, milliseconds, zones that are named and one that is
// not all come out as what they mean.
func TestClocks(t *testing.T) {
	want := time.Date(2026, 1, 2, 3, 4, 5, 250e6, time.UTC).UnixNano()
	berlin := time.FixedZone("", 3600)
	for _, c := range []struct {
		text string
		zone *time.Location
	}{
		{"1767323045.25", time.UTC}, {"1767323045250", time.UTC}, {"1.76732304525e9", time.UTC},
		{"2026-01-02T03:04:05.25Z", berlin}, {"2026-01-02T04:04:05.250000+0100", time.UTC}, {"2026-01-02T04:04:05.25+01:00", time.UTC},
		{"2026/01/02 04:04:05.250000", berlin}, {"2026-01-02 03:04:05.25", time.UTC},
	} {
		w := lookup(map[string]int{"t": 0}, []string{c.text})
		if got := w.stamp("t", c.zone); got != want || w.bad != nil {
			t.Errorf("%s: got %s (%v)", c.text, time.Unix(0, got).UTC(), w.bad)
		}
	}
}

// TestDecimalIsExact: what strconv rounds is not rounded, and what it refuses is
// refused.
func TestDecimalIsExact(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1655071198.444458": 1655071198444458000, "0.000001": 1000, "3.9999999996": 4e9, "5.": 5e9} {
		if got, ok := decimal(s); !ok || got != want {
			t.Errorf("%s: got %d %v, expected %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "-1", "1e9", "12345678901", "1.2.3", "0x10", " 1", "1.x"} {
		if got, ok := decimal(s); ok {
			t.Errorf("%q is read as %d", s, got)
		}
	}
}

// TestHalvesMeet: two directions that NetFlow tells apart are one flow, from who
// began; a stranger with the same ports minutes later is another.
func TestHalvesMeet(t *testing.T) {
	head := "ts,te,td,sa,da,sp,dp,pr,flg,ipkt,ibyt,opkt,obyt\n"
	line := func(at, from, to, fp, tp, flags string, n int) string {
		return fmt.Sprintf("2026-01-02 %s,x,0.5,%s,%s,%s,%s,TCP,%s,%d,%d,0,0\n", at, from, to, fp, tp, flags, n, 60*n)
	}
	a, b := "10.0.0.1", "198.51.100.7"
	text := head + line("00:00:00", b, a, "443", "40000", ".AP.SF", 4) + line("00:00:00", a, b, "40000", "443", ".AP.SF", 5) +
		line("00:01:00", a, b, "40000", "443", ".AP...", 2) + // a long flow is exported in parts
		line("00:09:00", a, b, "40000", "443", "....S.", 1)
	flows, rep := readAll(t, "nf.csv", []byte(text), Options{})
	if len(flows) != 2 {
		t.Fatalf("%d flows: %v", len(flows), rep.Words())
	}
	r := &flows[0].Record
	if r.Initiator().Addr() != netip.MustParseAddr(a) || r.Dir[0].Packets != 7 || r.Dir[1].Packets != 4 || r.Dir[1].Bytes != 240 || r.End != flow.EndFIN || !r.InitInside {
		t.Errorf("got %+v", r)
	}
	if r := &flows[1].Record; r.Packets() != 1 || r.End != flow.EndIdle {
		t.Errorf("got %+v", r)
	}
}

// TestOrderOfEnds: flows come in the order of their ends although the log is in
// that of their starts, and those beyond the window are counted.
func TestOrderOfEnds(t *testing.T) {
	var b strings.Builder
	b.WriteString(zeekHead)
	for i := range 50 {
		b.WriteString(zeekLine(map[int]string{0: fmt.Sprint(1700000000 + i), 6: fmt.Sprint(50 - 2*(i%20))}))
	}
	for window, late := range map[int]bool{64: false, 2: true} {
		flows, rep := readAll(t, "conn.log", []byte(b.String()), Options{Window: window})
		for i := 1; i < len(flows) && !late; i++ {
			if flows[i].Record.Last < flows[i-1].Record.Last {
				t.Fatalf("flow %d ends before the one ahead of it", i)
			}
		}
		if (rep.Late > 0) != late || len(flows) != 50 {
			t.Errorf("window %d: %d late of %d", window, rep.Late, len(flows))
		}
	}
}

// million writes a log of ever new hosts without holding it.
type million struct {
	n, of int
	buf   bytes.Buffer
}

func (m *million) Read(p []byte) (int, error) {
	for m.buf.Len() < len(p) && m.n < m.of {
		a := netip.AddrFrom4([4]byte{10, byte(m.n >> 16), byte(m.n >> 8), byte(m.n)})
		fmt.Fprintf(&m.buf, "%d.%06d\t%s\t%d\t198.51.%d.%d\t443\ttcp\t0.5\t5\t700\t400\t4\t900\t600\tShADadFf\tSF\n", 1700000000+m.n/1000, m.n%1000, a, 1024+m.n%60000, m.n%256, m.n/256%256)
		m.n++
	}
	if m.buf.Len() == 0 {
		return 0, io.EOF
	}
	return m.buf.Read(p)
}

// TestManyHostsTakeNoMemory: memory is what the window takes, however many hosts
// a log names.
func TestManyHostsTakeNoMemory(t *testing.T) {
	const of = 150_000
	src, err := lines.New("conn.log", io.MultiReader(strings.NewReader(zeekHead), &million{of: of}), MaxLine)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newReader(src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	most, n := uint64(0), 0
	for ; ; n++ {
		if n%50_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		}
	}
	t.Logf("%d flows of as many hosts, at most %.1f MB in use", n, float64(most)/1e6)
	if n != of || most > 40e6 {
		t.Errorf("%d flows, %d bytes in use: expected %d and at most 40 MB", n, most, of)
	}
}

// TestCutGzip: what a broken archive holds is used, and the report says that it
// is broken.
func TestCutGzip(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(zeekHead + strings.Repeat(zeekLine(nil), 2000)))
	_ = z.Close()
	flows, rep := readAll(t, "conn.log.gz", b.Bytes()[:b.Len()-12], Options{})
	if len(flows) == 0 || !strings.Contains(rep.Cut, "cut off") {
		t.Errorf("%d flows, cut %q", len(flows), rep.Cut)
	}
}

// TestForeign: what is no flow log is refused with a name for it.
func TestForeign(t *testing.T) {
	for _, text := range []string{"", "hello\n", `{"a":1}` + "\n", "a,b,c\n1,2,3\n", "\x00\x01\x02", "# only\n# comments\n", "\xa5\x01\x00\x00\x00\x00"} {
		src, err := lines.New("x", strings.NewReader(text), MaxLine)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newReader(src, Options{}); !errors.Is(err, ErrForeign) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// fuzzed reads whatever it is given, and holds what came out to what every
// reader of flows may believe.
func fuzzed(t *testing.T, b []byte) {
	src, err := lines.New("fuzz", bytes.NewReader(b), MaxLine)
	if err != nil {
		return
	}
	r, err := newReader(src, Options{Alone: true, Window: 4, MaxJoin: 8, LinkHeader: len(b) % 2 * 14})
	if err != nil {
		return
	}
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		check(t, f)
	}
	if rep := r.Report(); rep.Flows > rep.Lines || len(rep.Faults) > 20 {
		t.Fatalf("%d flows of %d lines, %d faults", rep.Flows, rep.Lines, len(rep.Faults))
	}
}

func check(t *testing.T, f *Flow) {
	r := &f.Record
	switch {
	case r.Last < r.Start || r.Start < 0 || r.Last-r.Start > int64(maxSpan):
		t.Fatalf("from %d to %d", r.Start, r.Last)
	case !r.Key.A.IsValid() || !r.Key.B.IsValid() || r.Key.A.Is4In6() || r.Key.A.Zone() != "":
		t.Fatalf("key %v", r.Key)
	case r.Validated[0] || r.Validated[1]:
		t.Fatal("a log proves nothing")
	case r.End == flow.Open:
		t.Fatal("a flow of a log has ended")
	case len(f.UID) > 64*3 || len(f.Family) > 64*3:
		t.Fatal("long names are kept")
	}
}

func FuzzZeek(f *testing.F) {
	f.Add([]byte(zeekHead + zeekLine(nil) + zeekLine(map[int]string{6: "-"})))
	f.Add([]byte(`{"ts":1700000000.5,"uid":"C1","id.orig_h":"fe80::1%eth0","id.resp_h":"10.0.0.2","id.orig_p":1,"id.resp_p":2,"proto":"icmp","orig_pkts":1e0,"resp_pkts":0,"local_orig":true}` + "\n"))
	f.Fuzz(fuzzed)
}

func FuzzSuricata(f *testing.F) {
	f.Add([]byte(`{"timestamp":"2026-01-02T00:00:00.5+0100","flow_id":7,"event_type":"alert","alert":{"severity":2,"signature":"x"}}` + "\n" + `{"timestamp":"2026-01-02T00:00:00Z","flow_id":7,"event_type":"flow","src_ip":"10.0.0.1","src_port":1,"dest_ip":"::1","dest_port":2,"proto":"TCP","app_proto":"tls","flow":{"pkts_toserver":1,"pkts_toclient":1,"bytes_toserver":60,"bytes_toclient":60,"start":"2026-01-02T00:00:00Z","end":"2026-01-02T00:00:01Z"},"tcp":{"tcp_flags_ts":"1b","tcp_flags_tc":"04"}}` + "\n"))
	f.Fuzz(fuzzed)
}

func FuzzArgus(f *testing.F) {
	f.Add([]byte("StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,SrcPkts,Label\n2026/01/02 00:00:00.5,1,tcp,10.0.0.1,1,  <-,10.0.0.2,2,SPA_FR,2,120,60,1,\"flow=From-Botnet\"\n"))
	f.Fuzz(fuzzed)
}

func FuzzNetFlow(f *testing.F) {
	f.Add([]byte("ts,te,td,sa,da,sp,dp,pr,flg,ipkt,ibyt,opkt,obyt\n2026-01-02 00:00:00,x,0.5,10.0.0.1,10.0.0.2,40000,443,TCP,.AP.SF,5,300,0,0\n2026-01-02 00:00:00,x,0.5,10.0.0.2,10.0.0.1,443,40000,TCP,.AP.SF,4,300,0,0\n"))
	f.Fuzz(fuzzed)
}

func FuzzWestermo(f *testing.F) {
	f.Add([]byte("sAddress,rAddress,protocol,start,end,sPackets,rPackets,sBytesSum,rBytesSum,sttl,sFinRate,NST_M_Label\n10.0.0.1,10.0.0.2,IPV4-TCP,1678440574.5,1678440575,1,1,60,60,64.0,0.5,BAD-SSH\n"))
	f.Fuzz(fuzzed)
}

func FuzzCIC(f *testing.F) {
	f.Add([]byte(" Destination Port, Flow Duration, Total Fwd Packets, Total Backward Packets,Total Length of Fwd Packets,Total Length of Bwd Packets,Init_Win_bytes_forward,Source IP,Destination IP,Source Port,Timestamp, Label\n80,5,1,1,3,4,-1,10.0.0.1,10.0.0.2,4000,02/01/2026 03:04:05,DoS\n"))
	f.Fuzz(fuzzed)
}
