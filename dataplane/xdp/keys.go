package xdp

import (
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// ruleBuf is what the kernel reads keys and values from, and writes values to:
// one place for each kind, so that a rule needs no memory of its own.
type ruleBuf struct {
	flow   kernelFlowKey
	addr   kernelRuleKey
	pair   kernelPairKey
	prefix kernelPrefixKey
	value  kernelRule
	first  uint32 // the key of what there is one of: 0
	until  uint64 // what holding says
}

// key is the kernel's key of a target in a table. It is good until the next one
// of that table.
func (b *ruleBuf) key(in table, t dataplane.Target) unsafe.Pointer {
	switch in {
	case tableFlow:
		b.flow = flowKey(t.Flow)
		return unsafe.Pointer(&b.flow)
	case tableAddr, tableService:
		b.addr = kernelRuleKey{Addr: toKernel(t.Prefix.Addr()), Port: t.Port, Proto: t.Proto}
		return unsafe.Pointer(&b.addr)
	case tableToward:
		b.addr = kernelRuleKey{Addr: toKernel(t.Prefix.Addr()), Toward: 1}
		return unsafe.Pointer(&b.addr)
	case tablePair:
		b.pair, _ = pairKey(t)
		return unsafe.Pointer(&b.pair)
	}
	fam, bits := family(t.Prefix)
	b.prefix = kernelPrefixKey{Bits: 32 + bits, Family: fam, Addr: toKernel(t.Prefix.Addr())}
	if in == tableObservePrefix {
		b.prefix.Class = classObserve
	}
	return unsafe.Pointer(&b.prefix)
}

// pairKey is the kernel's key of a pair; hostB is 1 when the inside host is its b.
func pairKey(t dataplane.Target) (k kernelPairKey, hostB uint32) {
	a, b := t.Host, t.Prefix.Addr()
	if b.Less(a) {
		a, b, hostB = b, a, 1
	}
	return kernelPairKey{A: toKernel(a), B: toKernel(b)}, hostB
}

func fromPair(k *kernelPairKey, hostB uint32) dataplane.Target {
	host, peer := fromKernel(k.A), fromKernel(k.B)
	if hostB != 0 {
		host, peer = peer, host
	}
	return dataplane.Pair(host, peer)
}
