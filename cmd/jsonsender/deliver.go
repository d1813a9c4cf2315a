package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/worker"
)

// sender delivers what is in the outbox.
type sender struct {
	w      *worker.Worker
	out    *outbox
	format format.Format
	sink   sink.Sink
	pause  backoff.Backoff
	aside  *aside
	saved  func() // keeps what a restarted sender goes on from

	failing atomic.Bool     // the last attempt has failed
	tried   map[string]bool // ids that went out and are unknown: sent again, they may arrive twice
}

// deliver sends until ctx is done. What was not acknowledged by then is in the outbox.
func (s *sender) deliver(ctx context.Context) {
	for {
		batch, err := s.out.take(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = s.send(ctx, batch)
		}
		if err = s.judge(ctx, err); err != nil {
			return // ctx is done
		}
	}
}

// send delivers one batch, and notes what became of it.
func (s *sender) send(ctx context.Context, batch []*entry) error {
	fates := make([]fate, len(batch))
	items, index := s.items(batch, fates)
	var failed error
	if len(items) > 0 {
		if s.out.limits.keyed {
			s.saved()
		}
		sent := s.w.Counter("sent_bytes")
		before := sent.Value()
		var ahead sync.WaitGroup
		ahead.Go(func() { s.out.readAhead(batch) })
		results, err := s.sink.Deliver(ctx, items)
		ahead.Wait()
		failed = err
		if refusal := s.fill(fates, index, batch, results, sent.Value() > before); failed == nil {
			failed = refusal
		}
	}
	s.w.TroubleWith("set aside", s.setAside(s.out.settle(batch, fates)))
	s.saved()
	return failed
}

// items are what is sent of a batch, and their places in it. What is not sent has its fate.
func (s *sender) items(batch []*entry, fates []fate) (items []sink.Item, index []int) {
	now := time.Now()
	late, _ := s.format.(format.Latecomer)
	for i, e := range batch {
		if late != nil && late.Late(&e.record, now) {
			fates[i] = given
			s.w.Counter("late_dropped").Add(1)
			continue
		}
		if e.body == nil {
			if e.body, fates[i] = s.encode(&e.record); fates[i] != waits {
				continue
			}
		}
		items = append(items, sink.Item{Record: &e.record, Body: e.body})
		index = append(index, i)
	}
	return items, index
}

// encode is a record in the receiver's format, or given where the format has no room for it.
func (s *sender) encode(r *record.Record) ([]byte, fate) {
	body, err := s.format.Encode(r)
	switch {
	case errors.Is(err, format.ErrSkip):
		s.w.Counter("format_skipped").Add(1)
		return nil, given
	case err != nil:
		s.w.Counter("lost_unencodable").Add(1)
		s.w.Log.Warn("drop record", "id", r.ID(), "err", err)
		return nil, given
	}
	return body, waits
}

// fill turns results into fates; out says whether anything went out at all. Its error is the last
// refusal.
func (s *sender) fill(fates []fate, index []int, batch []*entry, results []sink.Result, out bool) (refusal error) {
	again, acknowledged := map[string]bool{}, 0
	for k, r := range results {
		e := batch[index[k]]
		if out && len(s.tried) > 0 && s.tried[e.record.ID()] {
			s.w.Counter("sent_again").Add(1)
		}
		switch r.State {
		case sink.Acknowledged:
			fates[index[k]] = arrived
			acknowledged++
		case sink.Refused:
			id := e.record.ID()
			fates[index[k]] = refused
			s.w.Counter("refusals").Add(1)
			s.w.Log.Warn("record refused", "id", id, "answer", r.Reason)
			refusal = &refusedError{id, r.Reason}
		default:
			again[e.record.ID()] = out || s.tried[e.record.ID()]
		}
	}
	s.w.Counter("acknowledged").Add(acknowledged)
	if len(results) > 0 {
		s.tried = again
	}
	return refusal
}

// refusedError is trouble for as long as a refused record waits. The link works: there is no pause
// but the record's own.
type refusedError struct{ id, reason string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("the receiver refused record %s: %s", e.id, e.reason)
}

// judge shows what is wrong with the link, and pauses after a failure. It fails when ctx is done.
func (s *sender) judge(ctx context.Context, err error) error {
	var refusal *refusedError
	switch {
	case err == nil:
		s.pause.Succeeded()
		s.failing.Store(false)
		if s.out.refusals() == 0 {
			s.w.TroubleWith("send", nil)
		}
		return nil
	case errors.As(err, &refusal):
		s.w.TroubleWith("send", err)
		return nil // each record has its own pause
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.w.TroubleWith("send", err)
	s.failing.Store(true)
	pause := s.pause.Failed(0)
	if problem := (*sink.Problem)(nil); errors.As(err, &problem) {
		pause = max(pause, min(problem.RetryAfter, uplink.LongestAfter))
		if problem.Ours {
			pause = max(pause, oursPause)
		}
	}
	return sleep(ctx, pause)
}

// oursPause is the least pause when a person has to act.
const oursPause = 30 * time.Second

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setAside keeps records that the receiver will not take, and drops them from the outbox.
func (s *sender) setAside(list []*entry) error {
	if len(list) == 0 {
		return nil
	}
	for i, e := range list {
		if err := s.aside.add(e.record.Raw()); err != nil {
			s.out.drop(list[:i])
			return fmt.Errorf("set a refused record aside: %w", err)
		}
		s.w.Counter("set_aside").Add(1)
	}
	s.out.drop(list)
	return nil
}
