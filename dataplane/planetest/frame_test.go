package planetest

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// TestFramesAsAnotherDecoderReadsThem: lengths, checksums and fields are those
// that a stranger's code finds.
func TestFramesAsAnotherDecoderReadsThem(t *testing.T) {
	v4 := [2]netip.AddrPort{ap("10.0.0.1:41000"), ap("203.0.113.9:50001")}
	v6 := [2]netip.AddrPort{ap("[fd00::1]:41000"), ap("[2001:db8::9]:50001")}
	for name, ends := range map[string][2]netip.AddrPort{"v4": v4, "v6": v6} {
		for _, proto := range []uint8{flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6} {
			if name == "v4" && proto == flow.ICMPv6 || name == "v6" && proto == flow.ICMP {
				continue
			}
			for _, payload := range []string{"", "x", "even", "seventeen letters"} {
				p := Packet{Src: ends[0], Dst: ends[1], Proto: proto, TTL: 9, Flags: flow.SYN | flow.ACK, Seq: 5, Ack: 6, Window: 7,
					Type: 128, Code: 1, Payload: []byte(payload), VLAN: []uint16{5, 6}}
				checkFrame(t, name, p)
			}
		}
	}
}

func checkFrame(t *testing.T, name string, p Packet) {
	t.Helper()
	pkt := gopacket.NewPacket(p.Frame(), layers.LayerTypeEthernet, gopacket.Default)
	if e := pkt.ErrorLayer(); e != nil {
		t.Fatalf("%s proto %d: %v", name, p.Proto, e.Error())
	}
	for _, l := range pkt.Layers() {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(pkt.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err, bad := pkt.VerifyChecksums(); err != nil || len(bad) != 0 {
		t.Errorf("%s proto %d payload %q: checksums %v %v", name, p.Proto, p.Payload, bad, err)
	}
	if n := pkt.NetworkLayer().NetworkFlow(); n.Src().String() != p.Src.Addr().String() || n.Dst().String() != p.Dst.Addr().String() {
		t.Errorf("%s: addresses %v", name, n)
	}
	switch l := pkt.Layer(layers.LayerTypeTCP).(type) {
	case *layers.TCP:
		if !l.SYN || !l.ACK || l.FIN || l.Seq != 5 || l.Ack != 6 || l.Window != 7 || l.SrcPort != 41000 || !bytes.Equal(l.Payload, p.Payload) {
			t.Errorf("%s: tcp %+v", name, l)
		}
	default:
		if p.Proto == flow.TCP {
			t.Errorf("%s: no TCP layer found", name)
		}
	}
	if tags := pkt.Layers(); len(tags) < 3 || tags[1].LayerType() != layers.LayerTypeDot1Q || tags[2].LayerType() != layers.LayerTypeDot1Q {
		t.Errorf("%s: two VLAN tags expected", name)
	}
}

func TestSessionKeepsSequenceNumbers(t *testing.T) {
	s := NewSession(ap("10.0.0.1:1000"), ap("203.0.113.9:443"))
	var segs []*layers.TCP
	steps := s.Open()
	steps = append(steps, s.Data(0, make([]byte, 100)), s.Data(1, make([]byte, 50)))
	steps = append(steps, s.Close()...)
	for _, st := range steps {
		segs = append(segs, gopacket.NewPacket(st.Frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP))
	}
	next := map[layers.TCPPort]uint32{1000: segs[0].Seq, 443: segs[1].Seq}
	for i, g := range segs {
		if g.Seq != next[g.SrcPort] {
			t.Errorf("segment %d: sequence %d, expected %d", i, g.Seq, next[g.SrcPort])
		}
		if g.ACK && g.Ack != next[g.DstPort] {
			t.Errorf("segment %d: acknowledges %d, expected %d", i, g.Ack, next[g.DstPort])
		}
		next[g.SrcPort] += uint32(len(g.Payload))
		if g.SYN || g.FIN {
			next[g.SrcPort]++
		}
	}
}
