package main

import (
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/wear"
	"github.com/perch-edge/perch/pkg/worker"
)

// meter counts what is written to disk. Readings do not wait for it: where it
// cannot keep its count for the next run, that begins anew.
type meter struct {
	w     *worker.Worker
	count wear.Count
	cache *spool.Spool // nil where there is none
	rows  int64        // bytes of rows, in this run
}

func openMeter(w *worker.Worker) *meter {
	m := &meter{w: w, count: wear.Count{BootID: w.BootID()}}
	cache, err := spool.Open(w.Node().CacheDir, spool.Work)
	if err == nil {
		m.cache = cache
		m.count, err = wear.Load(cache, w.Name(), w.BootID())
	}
	if err != nil {
		w.Log.Warn("load wear", "err", err)
	}
	return m
}

// show brings the count into the state. others is what was written besides rows.
func (m *meter) show(others int64) {
	now := m.w.Now().Boot
	m.count.Add(now, m.rows+others)
	m.w.Gauge("written_24h_bytes", float64(m.count.Used(now)))
}

func (m *meter) save() {
	if m.cache == nil {
		return
	}
	if err := m.count.Save(m.cache, m.w.Name()); err != nil {
		m.w.Log.Warn("save wear", "err", err)
	}
}

func (m *meter) close() error {
	if m.cache == nil {
		return nil
	}
	m.save()
	return m.cache.Close()
}
