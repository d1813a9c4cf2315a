package rtspcam

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bluenviron/gortsplib/v5/pkg/format"
)

// A key frame without parameter sets gets the newest ones, also where they came
// with a sequence parameter set, and all of those that came together.
func TestKeyFramesGetTheNewestParameterSets(t *testing.T) {
	vps, sps := []byte{0x40, 1, 1}, []byte{
		0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x78, 0xa0, 0x03, 0xc0, 0x80, 0x10,
		0xe5, 0x96, 0x66, 0x69, 0x24, 0xca, 0xe0, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x01, 0xe0, 0x80}
	for _, tt := range []struct {
		name     string
		format   format.Format
		sets     [][]byte // in a unit with a key frame
		key      []byte
		old, new []byte
	}{
		{"H.264", &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: sps640, PPS: pps}, [][]byte{sps320, {0x68, 1, 2}, {0x68, 3, 4}}, idr(1), pps, []byte{0x68, 3, 4}},
		{"H.265", &format.H265{PayloadTyp: 96, VPS: vps, SPS: sps, PPS: []byte{0x44, 1, 9}}, [][]byte{sps, {0x44, 1, 2}, {0x44, 1, 4}}, []byte{0x26, 1, 0xaf}, []byte{0x44, 1, 9}, []byte{0x44, 1, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCodec(tt.format)
			if has := c.look(append(slices.Clone(tt.sets), tt.key)); !has.key {
				t.Fatal("a unit with parameter sets and a key frame is no key frame")
			}
			got := c.join([][]byte{tt.key})
			for _, nalu := range tt.sets {
				if !bytes.Contains(got, append([]byte{0, 0, 0, 1}, nalu...)) {
					t.Errorf("join = %x; want it to have %x", got, nalu)
				}
			}
			if bytes.LastIndex(got, tt.new) < bytes.LastIndex(got, tt.old) {
				t.Errorf("join = %x; want %x behind %x", got, tt.new, tt.old)
			}
		})
	}
}
