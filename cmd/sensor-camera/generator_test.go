package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// frames is a program that writes frames of the scene to its standard output,
// numbered from 0, as a camera's program does. Its arguments are the size, the
// format, frames a second (0: as fast as they are taken), and what to do in turn:
//
//	20          write 20 frames
//	half        half a frame
//	small       a JPEG of another size
//	thumb       a JPEG with another one in its header
//	noise       bytes that are no picture
//	short       a frame without its last 100 bytes
//	pad:256     frames without end, their rows padded to 256 bytes
//	once:PATH   leave out what comes next where there is a file PATH, which is made now
//	tell:TEXT   to standard output; ^G and ^[ are control characters
//	say:TEXT    to standard error
//	hang        be silent, without end
//	exit:3      with that status
func frames() {
	if err := generate(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "frames:", err)
		os.Exit(1)
	}
}

type generator struct {
	format pixel.Format
	size   pixel.Size
	hz     float64
	begun  time.Time
	number uint64
}

func generate(args []string) error {
	size, err := pixel.ParseSize(args[0])
	if err != nil {
		return err
	}
	hz, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	g := &generator{format: pixel.Format(args[1]), size: size, hz: hz, begun: time.Now()}
	for i := 3; i < len(args); i++ {
		if path, ok := strings.CutPrefix(args[i], "once:"); ok {
			if _, err := os.Stat(path); err == nil {
				i++
				continue
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			continue
		}
		if err := g.obey(args[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) obey(what string) error {
	verb, rest, _ := strings.Cut(what, ":")
	switch verb {
	case "half":
		return g.write(func(b []byte) []byte { return b[:len(b)/2] })
	case "short":
		return g.write(func(b []byte) []byte { return b[:len(b)-100] })
	case "pad":
		stride, err := strconv.Atoi(rest)
		for err == nil {
			err = g.write(func(b []byte) []byte { return pad(b, g.format, g.size, stride) })
		}
		return err
	case "tell":
		_, err := fmt.Println(strings.NewReplacer("^G", "\a", "^[", "\x1b").Replace(rest))
		return err
	case "small":
		small, err := draw(g.format, pixel.Size{Width: g.size.Width / 2, Height: g.size.Height / 2}, g.number)
		if err != nil {
			return err
		}
		return g.write(func([]byte) []byte { return small })
	case "thumb":
		return g.write(withThumbnail)
	case "noise":
		_, err := os.Stdout.Write(bytes.Repeat([]byte("\x01noise\xff\x00"), 100))
		return err
	case "say":
		_, err := fmt.Fprintln(os.Stderr, rest)
		return err
	case "hang":
		select {}
	case "exit":
		code, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		os.Exit(code)
	}
	n, err := strconv.Atoi(verb)
	for range n {
		if err == nil {
			err = g.write(nil)
		}
	}
	return err
}

// write writes the next frame at its time, as change makes it.
func (g *generator) write(change func([]byte) []byte) error {
	if g.hz > 0 {
		time.Sleep(time.Until(g.begun.Add(time.Duration(float64(g.number) / g.hz * 1e9))))
	}
	frame, err := draw(g.format, g.size, g.number)
	if err != nil {
		return err
	}
	g.number++
	if change != nil {
		frame = change(frame)
	}
	_, err = os.Stdout.Write(frame)
	return err
}

// draw is a frame of the scene, also as mjpeg.
func draw(format pixel.Format, size pixel.Size, number uint64) ([]byte, error) {
	drawn := format
	if format == pixel.MJPEG {
		drawn = pixel.YUV420
	}
	s, err := scene.New(drawn, size)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, s.Bytes())
	if err := s.Draw(number, frame); err != nil || format != pixel.MJPEG {
		return frame, err
	}
	enc, err := turbojpeg.NewEncoder()
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	img, err := pixel.NewImage(pixel.YUV420, size, frame)
	if err != nil {
		return nil, err
	}
	img.Colour = scene.Colour()
	return enc.Encode(img, 90)
}

// withThumbnail puts the picture into a segment of its own header (APP1).
func withThumbnail(picture []byte) []byte {
	out := append([]byte{}, picture[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(2+len(picture)))
	return append(append(out, picture...), picture[2:]...)
}

// pad is the frame with rows of stride bytes.
func pad(frame []byte, f pixel.Format, s pixel.Size, stride int) []byte {
	tight, _, err := pixel.Layout(f, s)
	if err != nil {
		panic(err)
	}
	planes, n, err := padded(f, s, stride)
	if err != nil {
		panic(err)
	}
	out := bytes.Repeat([]byte{0xaa}, n)
	for i, p := range planes {
		for y := range p.Rows {
			copy(out[p.Offset+y*p.Stride:], frame[tight[i].Offset+y*tight[i].Stride:][:tight[i].Stride])
		}
	}
	return out
}
