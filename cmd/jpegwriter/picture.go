package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/perch-edge/perch/internal/exif"
	"github.com/perch-edge/perch/internal/mjpeg"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// add makes a picture of the frame and files it. The frame is given back as
// soon as it is compressed, before anything is written.
func (a *album) add(frame msg.Frame) error {
	text, err := a.compress(frame)
	frame.Release()
	if err != nil {
		return err
	}
	side := a.describe(frame)
	if err := a.file(text, side); err != nil {
		return err
	}
	if a.latest != nil {
		if err := a.latest.Write(text); err != nil {
			a.w.Log.Warn("latest picture", "err", err)
		}
	}
	a.notices.waiting = append(a.notices.waiting, side)
	return nil
}

// compress returns the picture with its Exif segment, in memory of the album's own.
func (a *album) compress(frame msg.Frame) ([]byte, error) {
	jpeg := frame.Bytes()
	if frame.Format != string(pixel.MJPEG) || frame.Colour() != pixel.DefaultColour(pixel.MJPEG) {
		img, err := a.image(frame)
		if err != nil {
			return nil, err
		}
		if jpeg, err = a.encoder.Encode(img, a.cfg.Quality); err != nil {
			return nil, err
		}
	} else if segment, at := mjpeg.Tables(jpeg); len(segment) > 0 { // another program's frames may lack them
		jpeg = slices.Concat(jpeg[:at], segment, jpeg[at:])
	}
	out := bytes.NewBuffer(a.picture[:0])
	err := exif.Write(out, jpeg, a.exif(frame))
	a.picture = out.Bytes()
	return a.picture, err
}

// image is the frame in place. A JPEG picture is decoded: its colours are not
// those that viewers assume. Of an odd side the last row or column is lost.
func (a *album) image(frame msg.Frame) (img pixel.Image, err error) {
	if frame.Format != string(pixel.MJPEG) {
		return frame.Image()
	}
	size := pixel.Size{Width: frame.Width, Height: frame.Height}
	decoder, err := turbojpeg.NewDecoder(size) // once in a while: it costs less than the decoding
	if err != nil {
		return img, err
	}
	defer func() { err = errors.Join(err, decoder.Close()) }()
	if n := turbojpeg.DecodedBytes(size); len(a.decoded) < n {
		a.decoded = make([]byte, n)
	}
	img, err = decoder.Decode(frame.Bytes(), a.decoded)
	img.Colour = frame.Colour()
	return img, err
}

func (a *album) exif(f msg.Frame) exif.Info {
	_, source, stream, err := a.topic.Split()
	if err != nil {
		panic("jpegwriter: frames without a topic: " + err.Error())
	}
	d := a.w.DeviceOf(a.topic)
	n := a.w.Node()
	return exif.Info{Time: f.Stamp.Wall, Synced: f.Stamp.Synced, Size: pixel.Size{Width: f.Width, Height: f.Height},
		Node: n.Name, Position: n.Location.Position, Make: d.Manufacturer, Model: d.Model, Software: "perch " + version.Number,
		Source: string(source), Stream: string(stream), Epoch: f.Epoch.String(), Seq: uint64(f.Seq)}
}

func (a *album) describe(f msg.Frame) *sidecar.Sidecar {
	at := sidecar.Moment{Time: msg.Time{Time: f.Stamp.Wall}, BootNS: int64(f.Stamp.Boot), BootID: a.w.BootID(), Synced: f.Stamp.Synced,
		Epoch: f.Epoch, Seq: f.Seq}
	side := a.files.Describe(a.files.NewID(at), ".jpg", "image/jpeg", a.topic, at, at, 1)
	side.History = []sidecar.Event{a.files.Event(string(spool.Born), fmt.Sprintf("the picture of every %s", a.cfg.Every))}
	return side
}

// file writes the picture under work/ and moves it to born/, complete.
func (a *album) file(text []byte, side *sidecar.Sidecar) (err error) {
	f, err := a.spool.Create(side.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err = f.Write(text); err != nil {
		err = fmt.Errorf("write picture: %w", err)
	} else {
		err = a.spool.Complete(f, spool.Born, side)
	}
	if err != nil {
		return errors.Join(err, a.spool.Discard(side.Name, spool.Born))
	}
	return nil
}
