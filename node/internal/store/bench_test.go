package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkPutEvent(b *testing.B) {
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprint("writers=", parallel), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var n atomic.Int64
			b.SetParallelism(parallel / 2)
			b.ResetTimer()
			if parallel == 1 {
				for range b.N {
					if err := s.PutEvent(peerEvent(epoch.Add(time.Duration(n.Add(1))), "x")); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.PutEvent(peerEvent(epoch.Add(time.Duration(n.Add(1))), "x")); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkReopen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 20 {
		batch := s.Batch()
		for j := range 100 {
			batch.Event(peerEvent(epoch.Add(time.Duration(i*100+j)*time.Millisecond), "x"))
		}
		if err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
