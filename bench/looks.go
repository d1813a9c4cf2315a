package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// looksResult is what the detector's model and its surroundings take, and how
// old the frames are that are looked at, in the real programs.
type looksResult struct {
	model             string
	before, in, after []float64            // ms: preprocessing, inference, postprocessing, of some looks
	shares            []float64            // before + after in parts of in
	fresh             []float64            // frame intervals: age of the frame when a look begins
	stalled           map[string][]float64 // the same of the first look after a stall, by worker
}

// looker is a worker that looks at the newest frame now and then.
type looker struct{ name, program, counter string }

func lookers() []looker {
	return []looker{{objectsName, "detector", "frames_seen"}, {picturesName, "jpegwriter", "pictures"}}
}

// measureLooks lets the detector look ten times a second for a while, and then
// stalls it and jpegwriter.
func measureLooks(ctx context.Context, s *studio, seconds, stalls int) (r looksResult, err error) {
	r = looksResult{model: filepath.Base(s.model), stalled: map[string][]float64{}}
	if err := withFleet(ctx, s.dir, s.disk, s.bin, s.camera()+s.objects("max_hz = 10"), func(f *fleet) error {
		return r.sample(f, seconds)
	}); err != nil {
		return r, err
	}
	// Two seconds from look to look, so that one is due in each stall, and the
	// next is not before its state has been heard.
	entries := s.camera() + s.objects("max_hz = 0.5") + s.pictures(`every = "2s"`)
	err = withFleet(ctx, s.dir, s.disk, s.bin, entries, func(f *fleet) error {
		for range stalls {
			for _, l := range lookers() {
				age, err := l.stall(ctx, f)
				if err != nil {
					return fmt.Errorf("stall %s: %w", l.name, err)
				}
				r.stalled[l.name] = append(r.stalled[l.name], age)
			}
		}
		return nil
	})
	return r, err
}

// sample takes the figures of one look from each state.
func (r *looksResult) sample(f *fleet, seconds int) error {
	time.Sleep(settling)
	for range seconds {
		time.Sleep(time.Second)
		w, err := f.worker(objectsName)
		if err != nil {
			return err
		}
		g := w.Gauges
		r.before, r.in, r.after = append(r.before, g["preprocess_ms"]), append(r.in, g["inference_ms"]), append(r.after, g["postprocess_ms"])
		r.shares = append(r.shares, (g["preprocess_ms"]+g["postprocess_ms"])/g["inference_ms"])
		r.fresh = append(r.fresh, g["frame_age_ms"]/1000*frameHz)
	}
	return nil
}

func (f *fleet) worker(name string) (boxWorker, error) {
	b, err := f.ask("status")
	for _, w := range b.Workers {
		if w.Name == name {
			return w, err
		}
	}
	return boxWorker{}, errors.Join(fmt.Errorf("find %s: it does not run", name), err)
}

// stall stops a worker for two seconds after one of its looks, and returns the
// age of the frame that it looks at next.
func (l looker) stall(ctx context.Context, f *fleet) (age float64, err error) {
	for range 5 {
		w, err := f.worker(l.name)
		if err != nil {
			return 0, err
		}
		if w, err = l.after(ctx, f, w.Counters[l.counter]); err != nil {
			return 0, err
		}
		if err := syscall.Kill(w.PID, syscall.SIGSTOP); err != nil {
			return 0, fmt.Errorf("stop: %w", err)
		}
		time.Sleep(2 * time.Second)
		if err := syscall.Kill(w.PID, syscall.SIGCONT); err != nil {
			return 0, fmt.Errorf("continue: %w", err)
		}
		seen := w.Counters[l.counter]
		if w, err = l.after(ctx, f, seen); err != nil {
			return 0, err
		}
		if w.Counters[l.counter] == seen+1 { // and not a later look's
			return w.Gauges["frame_age_ms"] / 1000 * frameHz, nil
		}
	}
	return 0, errors.New("no state tells of the first look alone")
}

// after waits for a state with another look in it.
func (l looker) after(ctx context.Context, f *fleet, seen uint64) (w boxWorker, err error) {
	for begun := time.Now(); time.Since(begun) < 10*time.Second && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if w, err = f.worker(l.name); err != nil || w.Counters[l.counter] > seen {
			return w, err
		}
	}
	return w, errors.Join(fmt.Errorf("no look after %d in 10 s: %s", seen, w.Trouble), ctx.Err())
}

func (r looksResult) bars() (list []bar) {
	if r.model != simulated {
		list = append(list, bar{what: "1080p, " + r.model + ": pre- and postprocessing / inference", unit: "%", value: 100 * median(r.shares), must: 8, aim: 8,
			note: fmt.Sprintf("inference %.1f ms", median(r.in))})
	}
	for _, l := range lookers() {
		ages := r.stalled[l.name]
		list = append(list, bar{what: "age of the first frame after a 2 s stall, " + l.program, unit: "intervals", value: median(ages), must: 1, aim: 1,
			note: fmt.Sprintf("%d stalls, worst %.2f", len(ages), quantile(ages, 1))})
	}
	return list
}

func (r looksResult) table() string {
	if len(r.in) == 0 {
		return ""
	}
	worst := func(values []float64) string { return number(quantile(values, 1)) }
	return table([]string{"model", "preprocessing, ms ", "inference, ms ", "postprocessing, ms ", "both / inference, % ",
		"age of the frame, intervals ", "worst ", "looks "},
		[][]string{{r.model, number(median(r.before)), number(median(r.in)), number(median(r.after)), number(100 * median(r.shares)),
			number(median(r.fresh)), worst(r.fresh), fmt.Sprint(len(r.in))}})
}
