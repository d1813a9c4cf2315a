package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/choose"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// ramMain is a sender whose records are in RAM from the start, for bench: what outbox, sender and sink
// take without the bus and the disk.
func ramMain() {
	n, err := strconv.Atoi(os.Getenv("PERCH_BENCH_RECORDS"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "PERCH_BENCH_RECORDS: %v\n", err)
		os.Exit(2)
	}
	worker.Main(worker.Program[Config]{Name: "jsonsender", Reads: choose.Kinds(), Config: DefaultConfig,
		Run: func(ctx context.Context, w *worker.Worker, cfg Config) error { return sendFromRAM(ctx, w, cfg, n) }})
}

// sendFromRAM sends n records, and returns when ctx is done.
func sendFromRAM(ctx context.Context, w *worker.Worker, cfg Config, n int) (err error) {
	j, err := open(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	records := make([]record.Record, n)
	for i := range records {
		if records[i], err = record.Parse(msg.TopicOf(msg.KindReading, "air", "environment"), ramReading(i)); err != nil {
			return err
		}
	}
	delivery, stop := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { j.sender.deliver(delivery) })
	for i := range records {
		for j.out.isFull() && ctx.Err() == nil {
			time.Sleep(50 * time.Microsecond)
		}
		j.out.add(records[i], records[i].Seq, nil)
	}
	<-ctx.Done()
	stop()
	err = j.sender.sink.Close()
	sending.Wait()
	return err
}

func ramReading(n int) []byte {
	return fmt.Appendf(nil, `{"v":1,"kind":"reading","source":"air","stream":"environment","epoch":"18b2c5d0f3a9e671","seq":%d,`+
		`"time":"2026-01-01T00:00:00.%09dZ","boot_ns":%d,"boot_id":"7f5e26a4-36a5-4d8c-9a0c-1f2e3d4c5b6a","node":"bench","synced":true,`+
		`"columns":["temperature_c","pressure_pa","humidity_pct"],"values":[%v,%v,%v]}`,
		n, n*1000, 15_000_000_000_000+n, 20+float64(n%640)/64, 101325+float64(n%64)/64, 50+float64(n%1280)/64)
}
