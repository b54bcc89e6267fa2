package store

import (
	"encoding/binary"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// The first byte of a key says what it holds. Numbers are big endian, so keys
// sort as the numbers do.
const (
	pMeta   = 'M' // M<name>                     facts about this store
	pLedger = 'L' // L<seq 8>                    one entry for each write
	pEvent  = 'E' // E<id>                       event as JSON
	pKind   = 'K' // K<kind>\x00<id>             index of events by kind
	pBlock  = 'B' // B<target>                   standing rule as JSON
	pLabel  = 'A' // A<alert id>                 label as JSON
	pModel  = 'O' // O<hash>                     model's description as JSON
	pSlot   = 'S' // S<slot>                     hash of the model in use there
	pFlow   = 'F' // F<time ns 8><random 8><n 2> group of archived flows as CBOR
	pValue  = 'V' // V<name>                     head of a large value
	pPart   = 'P' // P<generation 8><i 4>        parts of large values
)

func metaKey(name string) []byte { return append([]byte{pMeta}, name...) }

func ledgerKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{pLedger}, seq)
}

func eventKey(id string) []byte { return append([]byte{pEvent}, id...) }

func kindPrefix(k event.Kind) []byte {
	return append(append([]byte{pKind}, k...), 0)
}

func kindKey(k event.Kind, id string) []byte { return append(kindPrefix(k), id...) }

func named(prefix byte, name string) []byte { return append([]byte{prefix}, name...) }

// flowKey says when a group of flows was archived and how many it holds.
func flowKey(at int64, unique uint64, n int) []byte {
	k := binary.BigEndian.AppendUint64([]byte{pFlow}, uint64(max(at, 0)))
	k = binary.BigEndian.AppendUint64(k, unique)
	return binary.BigEndian.AppendUint16(k, uint16(n))
}

func partKey(gen uint64, i int) []byte {
	k := binary.BigEndian.AppendUint64([]byte{pPart}, gen)
	return binary.BigEndian.AppendUint32(k, uint32(i))
}

// idFloor is the smallest event id of time t (event.NewID: milliseconds as 13
// hex digits come first).
func idFloor(t time.Time) string {
	ms := t.UnixMilli()
	if ms < 0 {
		ms = 0
	}
	const digits = "0123456789abcdef"
	var b [13]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[ms&15]
		ms >>= 4
	}
	return string(b[:])
}
