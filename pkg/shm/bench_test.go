package shm

import (
	"errors"
	"testing"
)

// The bar of each of these is 100 ns and no allocation.

func BenchmarkClaimPublish(b *testing.B) {
	w := create(b, folder(b), 1, Options{Slots: 8, SlotBytes: 64})
	b.ReportAllocs()
	for b.Loop() {
		s, err := w.Claim()
		if err != nil {
			b.Fatal(err)
		}
		s.Publish(64, Info{Boot: 1})
	}
}

// BenchmarkClaimPublishBesideLeases claims past slots that readers hold.
func BenchmarkClaimPublishBesideLeases(b *testing.B) {
	dir := folder(b)
	w := create(b, dir, 1, Options{Slots: 18, SlotBytes: 64})
	r := open(b, dir, "reader", 16)
	publish(b, w, 16)
	for seq := range uint64(16) {
		if _, err := r.At(seq); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := w.Claim()
		if err != nil {
			b.Fatal(err)
		}
		s.Publish(64, Info{Boot: 1})
	}
}

func BenchmarkLatestRelease(b *testing.B) {
	dir := folder(b)
	w := create(b, dir, 1, Options{Slots: 8, SlotBytes: 64})
	r := open(b, dir, "reader", 1)
	publish(b, w, 5)
	b.ReportAllocs()
	for b.Loop() {
		l, err := r.Latest()
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

// BenchmarkWalk leases message after message by number, round a history ring.
func BenchmarkWalk(b *testing.B) {
	dir := folder(b)
	w := create(b, dir, 1, Options{Slots: 1024, SlotBytes: 2048})
	r := open(b, dir, "reader", 1)
	publish(b, w, 1024)
	seq := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		l, err := r.At(seq)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
		seq = (seq + 1) % 1024
	}
}

// BenchmarkMiss looks for a message that has been overwritten: the longest look.
func BenchmarkMiss(b *testing.B) {
	dir := folder(b)
	w := create(b, dir, 1, Options{Slots: 1024, SlotBytes: 64})
	r := open(b, dir, "reader", 1)
	publish(b, w, 1025)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.At(0); !errors.Is(err, ErrGone) {
			b.Fatal(err)
		}
	}
}
