package main

import (
	"context"
	"errors"
	"fmt"
)

// sendResult is what jsonsender takes, and a bare loop around the same client library.
type sendResult struct {
	rows   int
	rounds map[string][]map[sendWay]sending // by scheme
	wear   wear
	idle   []idleSend
}

// sendSchemes are the ways to a receiver that are measured.
func sendSchemes() []string { return []string{"tcp", "unix", "ws", "http", "mqtt", "nats"} }

func sendWays() []sendWay { return []sendWay{bare, ram, drain, live} }

// measureSends sends readings by each way in turn, round by round.
func measureSends(ctx context.Context, base, bin string, schemes []string, ways []sendWay, rows, rounds int) (r sendResult, err error) {
	r = sendResult{rows: rows, rounds: map[string][]map[sendWay]sending{}}
	s, err := openSendStage(ctx, base, bin, rows)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for n := range rounds {
		for _, scheme := range schemes {
			round := map[sendWay]sending{}
			for _, way := range ways {
				if round[way], err = s.run(ctx, scheme, way); err != nil {
					return r, fmt.Errorf("%s, %s: %w", scheme, way, err)
				}
			}
			say("jsonsender: round %d, %s: %.3f s by a bare loop, %.3f from RAM, %.3f from disk, %.3f from the bus", n+1, scheme,
				round[bare].seconds, round[ram].seconds, round[drain].seconds, round[live].seconds)
			r.rounds[scheme] = append(r.rounds[scheme], round)
		}
	}
	return r, nil
}

// ratio is the median of what each round took by one way, in times of the bare loop's.
func (r sendResult) ratio(scheme string, way sendWay) float64 {
	list := r.rounds[scheme]
	return pairs(len(list), func(i int) float64 { return list[i][way].seconds / list[i][bare].seconds })
}

// medians are those of a scheme's rounds by one way: records a second, and µs of CPU a record.
func (r sendResult) medians(scheme string, way sendWay) (rate, cpu float64) {
	list := r.rounds[scheme]
	return pairs(len(list), func(i int) float64 { return float64(r.rows) / list[i][way].seconds }),
		pairs(len(list), func(i int) float64 { return list[i][way].cpu })
}

// A release reaches 0.7 of the bare loop's rate, and 0.9 is what it should come to.
const (
	mustSend = 1 / 0.7
	aimSend  = 1 / 0.9
)

func (r sendResult) bars() (list []bar) {
	for _, scheme := range sendSchemes() {
		if len(r.rounds[scheme]) == 0 {
			continue
		}
		for _, way := range sendWays()[1:] {
			rate, _ := r.medians(scheme, way)
			list = append(list, bar{what: fmt.Sprintf("readings to %s, %s: time of jsonsender / of a bare loop", scheme, way),
				value: r.ratio(scheme, way), must: mustSend, aim: aimSend, note: fmt.Sprintf("%.0f a second", rate)})
		}
	}
	if r.wear.records > 0 {
		list = append(list, bar{what: "receiver away: bytes written to disk a reading, ten a sync", unit: "bytes", value: r.wear.bytes, must: 700, aim: 450,
			note: fmt.Sprintf("of %d readings; the zeros of new segments are not in it", r.wear.records)})
	}
	idle := map[string]idleSend{}
	for _, i := range r.idle {
		idle[i.what] = i
	}
	if csv, send := idle[csvIdle], idle[sendIdle]; len(idle) > 0 {
		list = append(list,
			bar{what: "a reading a second: CPU of jsonsender / of csvwriter", value: send.cpu / csv.cpu, must: 2, aim: 1.2},
			bar{what: "a reading a second: wake-ups of jsonsender / of csvwriter", value: send.wakeups / csv.wakeups, must: 2, aim: 1.2})
	}
	return list
}

func (r sendResult) idleTable() string {
	var rows [][]string
	for _, i := range r.idle {
		rows = append(rows, []string{i.what, fmt.Sprintf("%.2f", 100*i.cpu), number(i.wakeups)})
	}
	return table([]string{"process", "CPU, % of a core ", "wake-ups a second "}, rows)
}

func (r sendResult) table() string {
	var rows [][]string
	for _, scheme := range sendSchemes() {
		if len(r.rounds[scheme]) == 0 {
			continue
		}
		for _, way := range sendWays() {
			rate, cpu := r.medians(scheme, way)
			rows = append(rows, []string{scheme, string(way), fmt.Sprintf("%.0f", rate), number(1 / r.ratio(scheme, way)), number(cpu)})
		}
	}
	return table([]string{"receiver", "way", "records/s ", "rate / the bare loop's ", "CPU µs a record "}, rows)
}
