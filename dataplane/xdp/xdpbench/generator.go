package xdpbench

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Generator sends a stream's packets out of one interface.
type Generator struct {
	stream *Stream
	prog   *ebpf.Program
}

// NewGenerator makes one for an interface of the namespace that [Generator.Send]
// will be called in. The link's two ends must take frames of programs: native
// XDP, or GRO switched on.
func NewGenerator(s *Stream, ifindex int) (*Generator, error) {
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	ins = append(ins, s.rewrite("send")...)
	ins = append(ins,
		asm.Mov.Imm(asm.R1, int32(ifindex)).WithSymbol("send"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "generator", Type: ebpf.XDP, License: "GPL", Instructions: ins})
	if err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	return &Generator{stream: s, prog: prog}, nil
}

// Close lets go of the generator's program.
func (g *Generator) Close() error { return g.prog.Close() }

const (
	liveFrames = 2 // BPF_F_TEST_XDP_LIVE_FRAMES
	sendBatch  = 64
)

// Send sends n packets from the calling thread, as fast as it can: a receiver
// that is slower loses some. It returns when all are on their way.
func (g *Generator) Send(n int) error {
	if n < 1 {
		return errors.New("send: expected at least one packet")
	}
	if _, err := g.prog.Run(&ebpf.RunOptions{Data: g.stream.Frame(), Repeat: uint32(n), Flags: liveFrames, BatchSize: sendBatch}); err != nil {
		return fmt.Errorf("send %d packets: %w", n, err)
	}
	return nil
}
