package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
)

// load is files of one length.
type load struct {
	files, bytes int
	time, disk   limits
}

// limits are what a bar must be at most, and should be.
type limits struct{ must, aim float64 }

func (l load) payload() float64 { return float64(l.files) * float64(l.bytes) }

func (l load) name() string {
	if l.bytes >= mib {
		return fmt.Sprintf("%d MiB", l.bytes/mib)
	}
	return fmt.Sprintf("%d KiB", l.bytes>>10)
}

// loads are as pictures, and as videos, whose hashes cost what nobody else pays.
func loads(pictures, videos int) []load {
	return []load{{pictures, 256 << 10, limits{0.8, 0.5}, limits{2, 1.25}}, {videos, 8 * mib, limits{1.5, 1}, limits{1.1, 1.05}}}
}

// carrier is a way to bring files from RAM to a disk, and from there to a server.
type carrier string

const (
	perch   carrier = "mover, uploader"
	synced  carrier = "cp, sync, mv, curl"
	plain   carrier = "cp, mv, curl"
	rclones carrier = "rclone move, twice"
)

// carriers are those that can be had here.
func carriers() []carrier {
	all := []carrier{perch}
	for _, c := range []struct {
		program string
		ways    []carrier
	}{{"curl", []carrier{synced, plain}}, {"rclone", []carrier{rclones}}} {
		if _, err := exec.LookPath(c.program); err != nil {
			say("files: without %s, which is not installed", c.program)
			continue
		}
		all = append(all, c.ways...)
	}
	return all
}

// carried is one run.
type carried struct {
	seconds, cpu float64 // CPU of all processes but the server
	written      float64 // bytes, on a disk that counts
}

// filesResult is, by load and way, what each round took.
type filesResult struct {
	loads  []load
	ways   []carrier
	rounds map[load][]map[carrier]carried
	disk   map[load]map[carrier]float64 // bytes written to disk for one of payload
}

// measureFiles lets all ways carry the same files in turn, and then once more on
// a disk that counts.
func measureFiles(ctx context.Context, dir, disk, bin string, all []load, rounds int) (r filesResult, err error) {
	r = filesResult{loads: all, ways: carriers(), rounds: map[load][]map[carrier]carried{}, disk: map[load]map[carrier]float64{}}
	d, err := openDepot(ctx, dir, bin)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	for _, l := range all {
		for i := range rounds + 1 {
			got, err := r.round(ctx, d, disk, l, i)
			if err != nil {
				return r, err
			}
			if i > 0 { // the first is not counted: caches are cold
				r.rounds[l] = append(r.rounds[l], got)
			}
		}
		say("files: %d of %s, %d rounds", l.files, l.name(), rounds)
	}
	return r, r.count(ctx, d, dir)
}

func (r *filesResult) round(ctx context.Context, d *depot, disk string, l load, i int) (map[carrier]carried, error) {
	order, got := slices.Clone(r.ways), map[carrier]carried{}
	if i%2 == 1 {
		slices.Reverse(order)
	}
	for _, way := range order {
		c, err := d.carry(ctx, way, l, disk, nil)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return got, fmt.Errorf("%s, %d files of %s: %w", way, l.files, l.name(), err)
		}
		got[way] = c
	}
	return got, nil
}

// count counts what is written, where a disk for that can be had.
func (r *filesResult) count(ctx context.Context, d *depot, dir string) (err error) {
	var most float64
	for _, l := range r.loads {
		most = max(most, l.payload())
	}
	m, err := mountMeter(dir, int64(2*most)+256*mib)
	if err != nil {
		say("files: written bytes are not counted, which takes root and mkfs.ext4: %v", err)
		return nil
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for _, l := range r.loads {
		r.disk[l] = map[carrier]float64{}
		for _, way := range r.ways {
			c, err := d.carry(ctx, way, l, m.at, m)
			if err != nil {
				return fmt.Errorf("%s, written bytes: %w", way, err)
			}
			r.disk[l][way] = c.written / l.payload()
		}
	}
	return nil
}

// figure is the median of a way's figure in all rounds.
func (r filesResult) figure(l load, way carrier, of func(carried) float64) float64 {
	return pairs(len(r.rounds[l]), func(i int) float64 { return of(r.rounds[l][i][way]) })
}

// against is ours set against another way, in pairs.
func (r filesResult) against(l load, way carrier, of func(carried) float64) float64 {
	return pairs(len(r.rounds[l]), func(i int) float64 { return of(r.rounds[l][i][perch]) / of(r.rounds[l][i][way]) })
}

func seconds(c carried) float64 { return c.seconds }
func cpuTime(c carried) float64 { return c.cpu }

func (r filesResult) bars() (list []bar) {
	for _, l := range r.loads {
		if slices.Contains(r.ways, synced) {
			b := bar{what: "files of " + l.name() + ", RAM to server: time of mover and uploader / of cp, sync, mv, curl", must: l.time.must, aim: l.time.aim,
				value: r.against(l, synced, seconds),
				note:  fmt.Sprintf("%s files/s; CPU %s times", number(float64(l.files)/r.figure(l, perch, seconds)), number(r.against(l, synced, cpuTime)))}
			if slices.Contains(r.ways, rclones) {
				b.note += fmt.Sprintf("; %s times the time of rclone, which syncs nothing", number(r.against(l, rclones, seconds)))
			}
			list = append(list, b)
		}
		if r.disk[l] != nil {
			list = append(list, bar{what: "files of " + l.name() + ": bytes written to disk / of payload", must: l.disk.must, aim: l.disk.aim, value: r.disk[l][perch]})
		}
	}
	return list
}

func (r filesResult) table() string {
	var rows [][]string
	for _, l := range r.loads {
		for _, way := range r.ways {
			took, disk := r.figure(l, way, seconds), "–"
			if n, counted := r.disk[l][way]; counted {
				disk = number(n)
			}
			rows = append(rows, []string{l.name(), string(way), number(float64(l.files) / took), number(l.payload() / took / 1e6),
				number(r.figure(l, way, cpuTime) * 1000 / float64(l.files)), number(r.against(l, way, seconds)), disk})
		}
	}
	return table([]string{"file", "way", "files/s ", "MB/s ", "CPU ms a file ", "time of ours / this ", "written/payload "}, rows)
}
