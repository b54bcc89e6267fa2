package xdpbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Source is where a packet comes from. Only IPv4.
type Source struct {
	Addr netip.Addr
	Port uint16
}

// Ends are the two ends of the link that a stream's frames travel, and where
// they are addressed to.
type Ends struct {
	From, To net.HardwareAddr
	Dst      netip.AddrPort // IPv4
	TCP      bool           // an established connection's ACKs instead of UDP datagrams
	Empty    bool           // of TCP: they carry nothing; the first packets of a flow cost more with a payload
}

// Stream is packets of equal length that differ in their source. They follow
// the list of sources in its order, round and round, and go on where the last
// use ended.
type Stream struct {
	sources, state *ebpf.Map
	frame          []byte
	max            int
}

// Layout of a frame: offsets that programs write to.
const (
	offCheck  = 14 + 10
	offSource = 14 + 12
	offPort   = 14 + 20
	frameLen  = 64
	anyPacket = 42 // what every program here wants to see
)

// Numbers of a stream's segments.
const (
	streamSeq = 1000
	streamAck = 2000
)

// MaxSources bounds the list of a stream.
const MaxSources = 1 << 22

// NewStream makes a stream that can hold up to n sources.
func NewStream(e Ends, n int) (*Stream, error) {
	if n < 1 || n > MaxSources {
		return nil, fmt.Errorf("stream: %d sources: expected 1 to %d", n, MaxSources)
	}
	if len(e.From) != 6 || len(e.To) != 6 || !e.Dst.Addr().Is4() {
		return nil, errors.New("stream: expected Ethernet addresses and an IPv4 destination")
	}
	sources, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sources", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(n), Flags: mmapable})
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Name: "state", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		sources.Close()
		return nil, fmt.Errorf("stream: %w", err)
	}
	return &Stream{sources: sources, state: state, frame: makeFrame(e), max: n}, nil
}

const mmapable = 1 << 10 // BPF_F_MMAPABLE

// Close lets go of the stream's maps.
func (s *Stream) Close() error { return errors.Join(s.sources.Close(), s.state.Close()) }

func makeFrame(e Ends) []byte {
	f := make([]byte, frameLen)
	copy(f, e.To)
	copy(f[6:], e.From)
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], frameLen-14)
	dst := e.Dst.Addr().As4()
	copy(ip[16:], dst[:])
	l4 := ip[20:]
	binary.BigEndian.PutUint16(l4[2:], e.Dst.Port())
	if e.TCP {
		ip[9] = 6
		binary.BigEndian.PutUint32(l4[4:], streamSeq)
		binary.BigEndian.PutUint32(l4[8:], streamAck)
		l4[12], l4[13] = 5<<4, 0x10
		binary.BigEndian.PutUint16(l4[14:], 512)
		if e.Empty {
			binary.BigEndian.PutUint16(ip[2:], 40)
		}
	} else {
		binary.BigEndian.PutUint16(l4[4:], frameLen-34) // a checksum of 0 is none
	}
	return f
}

// checksum is that of the IPv4 header of frame, with its own field as zero.
func checksum(frame []byte) uint16 {
	var sum uint32
	for i := 14; i < 34; i += 2 {
		if i != offCheck {
			sum += uint32(binary.BigEndian.Uint16(frame[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// SetSources replaces the list.
func (s *Stream) SetSources(list []Source) error {
	if len(list) == 0 || len(list) > s.max {
		return fmt.Errorf("stream: %d sources: expected 1 to %d", len(list), s.max)
	}
	mem, err := s.sources.Memory()
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	all := make([]byte, 8*len(list))
	frame := append([]byte(nil), s.frame...)
	for i, src := range list {
		at := all[8*i:]
		a := src.Addr.As4()
		copy(at, a[:])
		copy(frame[offSource:], a[:])
		binary.BigEndian.PutUint16(at[4:], checksum(frame))
		binary.BigEndian.PutUint16(at[6:], src.Port)
	}
	if _, err := mem.WriteAt(all, 0); err != nil {
		return fmt.Errorf("stream: write sources: %w", err)
	}
	runtime.KeepAlive(mem)
	return s.state.Put(uint32(0), [2]uint64{0, uint64(len(list))})
}

// Frame is the stream's frame as the first source sends it.
func (s *Stream) Frame() []byte { return append([]byte(nil), s.frame...) }

// bounds loads data into R7 and jumps to out when a frame is too short.
// Wants the context in R6.
func bounds(out string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, 4, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, anyPacket),
		asm.JGT.Reg(asm.R1, asm.R8, out),
	}
}

// rewrite writes the next source into the frame. Wants the context in R6 and
// spoils R0 to R5 and R7 to R9. It ends at the label out.
func (s *Stream) rewrite(out string) asm.Instructions {
	ins := bounds(out)
	return append(ins,
		asm.LoadMapValue(asm.R1, s.state.FD(), 0),
		asm.LoadMem(asm.R9, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Add.Imm(asm.R3, 1),
		asm.JLT.Reg(asm.R3, asm.R2, out+"_store"),
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(asm.R1, 0, asm.R3, asm.DWord).WithSymbol(out+"_store"),
		asm.StoreMem(asm.RFP, -4, asm.R9, asm.Word),
		asm.LoadMapPtr(asm.R1, s.sources.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, out),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.R7, offSource, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R0, 4, asm.Half),
		asm.StoreMem(asm.R7, offCheck, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.R0, 6, asm.Half),
		asm.StoreMem(asm.R7, offPort, asm.R1, asm.Half),
	)
}
