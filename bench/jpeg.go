package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

//go:embed testdata/jpeg.c
var jpegSource []byte

// encoder is a way to make a JPEG picture.
type encoder string

const (
	ours     encoder = "perch (internal/turbojpeg)"
	cTurbo   encoder = "C over libturbojpeg"
	goStdlib encoder = "image/jpeg"
)

func encoders() []encoder { return []encoder{ours, cTurbo, goStdlib} }

// jpegResult is CPU µs a picture, round by round, and the pictures' length.
type jpegResult struct {
	shape  shape
	rounds []map[encoder]float64
	bytes  map[encoder]int
}

// measureJPEG lets the encoders make pictures of one frame in turn. It fails
// when ours are not of the length of those that the library itself makes.
func measureJPEG(ctx context.Context, dir string, s shape, rounds, pictures int) (r jpegResult, err error) {
	r = jpegResult{shape: s, bytes: map[encoder]int{}}
	file := filepath.Join(dir, "frame.yuv")
	if err := makeFootage(file, s, 1); err != nil {
		return r, err
	}
	children, err := startEncoders(ctx, dir, file, s)
	defer func() {
		for _, c := range children {
			err = errors.Join(err, c.stop())
		}
	}()
	if err != nil {
		return r, err
	}
	for i := range rounds + 1 {
		order, got := encoders(), map[encoder]float64{}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, e := range order {
			var p pictured
			if err := children[e].ask(&p, "encode %d", pictures); err != nil {
				return r, err
			}
			got[e], r.bytes[e] = p.CPU/float64(pictures), p.Bytes
		}
		if i > 0 { // the first is not counted: caches are cold
			r.rounds = append(r.rounds, got)
		}
	}
	if r.bytes[ours] != r.bytes[cTurbo] {
		return r, fmt.Errorf("a picture has %d bytes, and %d when C makes it: want the same", r.bytes[ours], r.bytes[cTurbo])
	}
	return r, nil
}

func startEncoders(ctx context.Context, dir, file string, s shape) (children map[encoder]*child, err error) {
	program, err := compile(ctx, dir, "jpeg", jpegSource, "-lturbojpeg", "libturbojpeg0-dev")
	if err != nil {
		return nil, err
	}
	w, h := fmt.Sprint(s.size.Width), fmt.Sprint(s.size.Height)
	loop := []string{"picture-loop", "--file", file, "--width", w, "--height", h}
	children = map[encoder]*child{}
	for e, begin := range map[encoder]func() (*child, error){
		ours:     func() (*child, error) { return self(ctx, loop...) },
		goStdlib: func() (*child, error) { return self(ctx, append(slices.Clone(loop), "--std")...) },
		cTurbo:   func() (*child, error) { return start(ctx, program, file, w, h, fmt.Sprint(quality)) },
	} {
		c, err := begin()
		if err != nil {
			return children, err
		}
		children[e] = c
	}
	return children, nil
}

// cpu is the median of an encoder's CPU time a picture, in µs.
func (r jpegResult) cpu(e encoder) float64 {
	return pairs(len(r.rounds), func(i int) float64 { return r.rounds[i][e] })
}

// against is ours set against another, in pairs.
func (r jpegResult) against(e encoder) float64 {
	return pairs(len(r.rounds), func(i int) float64 { return r.rounds[i][ours] / r.rounds[i][e] })
}

func (r jpegResult) bars() []bar {
	size := r.shape.name
	return []bar{
		{what: size + ", JPEG: ours / C over the same library", value: r.against(cTurbo), must: 1.15, aim: 1.15,
			note: fmt.Sprintf("%.2f ms of CPU a picture", r.cpu(ours)/1000)},
		{what: size + ", JPEG: ours / image/jpeg", value: r.against(goStdlib), must: 1.0 / 6, aim: 1.0 / 6,
			note: fmt.Sprintf("%.1f times as fast", 1/r.against(goStdlib))},
	}
}

func (r jpegResult) table() string {
	var rows [][]string
	for _, e := range encoders() {
		if len(r.rounds) > 0 {
			rows = append(rows, []string{string(e), number(r.cpu(e) / 1000), number(r.against(e)), fmt.Sprint(r.bytes[e])})
		}
	}
	return table([]string{"encoder", "CPU ms a picture ", "ours / this ", "bytes "}, rows)
}
