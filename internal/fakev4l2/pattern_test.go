package fakev4l2

import (
	"bytes"
	"image/jpeg"
	"testing"
)

func TestCheckFindsEveryChangedByte(t *testing.T) {
	const seq = 0xfedcba98
	for _, size := range []int{16, 17, 23, 24, 64} {
		frame := make([]byte, size)
		Fill(seq, frame)
		if got, err := Check(frame); got != seq || err != nil {
			t.Errorf("Check(frame %#x of %d bytes) = %#x, %v; want %#[1]x", uint32(seq), size, got, err)
		}
		for i := range frame {
			frame[i] ^= 0x10
			if got, err := Check(frame); err == nil && got == seq {
				t.Errorf("Check(%d bytes with byte %d changed) = nil; want an error or another number", size, i)
			}
			frame[i] ^= 0x10
		}
		if _, err := Check(frame[:size-1]); err == nil {
			t.Errorf("Check(%d of %d bytes) = nil; want an error", size-1, size)
		}
		if _, err := Check(append(frame, 0)); err == nil {
			t.Errorf("Check(%d bytes and one more) = nil; want an error", size)
		}
	}
}

func TestCheckFindsTwoHalves(t *testing.T) {
	torn, other := make([]byte, 640), make([]byte, 640)
	Fill(8, torn)
	Fill(9, other)
	copy(torn[320:], other[320:])
	if _, err := Check(torn); err == nil {
		t.Error("Check(frame 8, its second half from frame 9) = nil; want an error")
	}
}

func TestJPEGIsPatternAndPicture(t *testing.T) {
	body, err := jpegBody(64, 48)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, maxComment+len(body))
	for _, seq := range []uint32{0, 1, 27, 1 << 31} {
		n := putJPEG(seq, body, dst)
		frame := dst[:n]
		if got, err := Check(frame); got != seq || err != nil {
			t.Errorf("Check(JPEG %d) = %d, %v; want %[1]d", seq, got, err)
		}
		if picture, err := jpeg.DecodeConfig(bytes.NewReader(frame)); err != nil || picture.Width != 64 || picture.Height != 48 {
			t.Errorf("JPEG %d is %dx%d, %v; want 64x48", seq, picture.Width, picture.Height, err)
		}
		frame[n-1] ^= 1
		if _, err := Check(frame); err == nil {
			t.Errorf("Check(JPEG %d with its last byte changed) = nil; want an error", seq)
		}
		if _, err := Check(frame[:n/2]); err == nil {
			t.Errorf("Check(half of JPEG %d) = nil; want an error", seq)
		}
	}
}

func FuzzCheck(f *testing.F) {
	frame := make([]byte, 40)
	Fill(3, frame)
	f.Add(frame)
	f.Add([]byte{0xff, 0xd8, 0xff, 0xfe, 0, 4})
	f.Fuzz(func(t *testing.T, frame []byte) {
		seq, err := Check(frame)
		if err != nil || frame[0] == 0xff {
			return
		}
		want := make([]byte, len(frame))
		Fill(seq, want)
		if !bytes.Equal(frame, want) {
			t.Errorf("Check(%x) = %d; want only %x to be that", frame, seq, want)
		}
	})
}
