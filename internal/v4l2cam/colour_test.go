package v4l2cam

import (
	"testing"

	"github.com/vladimirvivien/go4vl/v4l2"

	"github.com/perch-edge/perch/pkg/pixel"
)

// The tables of the kernel's guide, "Colorspaces" and "Detailed Colorspace
// Descriptions".
func TestColourOf(t *testing.T) {
	full601, limited := pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601}, func(m pixel.Matrix) pixel.Colour { return pixel.Colour{Range: pixel.Limited, Matrix: m} }
	for _, tt := range []struct {
		format                 string
		space, enc, quant, prv uint32
		want                   pixel.Colour
	}{
		{"YUYV", v4l2.ColorspaceDefault, 0, 0, privMagic, limited(pixel.BT601)},
		{"YUYV", v4l2.ColorspaceSRGB, 0, 0, privMagic, limited(pixel.BT601)}, // most webcams
		{"YUYV", v4l2.ColorspaceSRGB, v4l2.YCbCrEncoding709, 0, privMagic, limited(pixel.BT709)},
		{"NV12", v4l2.ColorspaceREC709, 0, 0, privMagic, limited(pixel.BT709)},
		{"NV12", v4l2.ColorspaceREC709, v4l2.YCbCrEncoding601, v4l2.QuantizationFullRange, privMagic, full601},
		{"YU12", v4l2.ColorspaceSMPTE170M, 0, 0, privMagic, limited(pixel.BT601)},
		{"YU12", v4l2.ColorspaceSMPTE240M, 0, 0, privMagic, limited(pixel.BT709)},
		{"YU12", v4l2.ColorspaceBT2020, 0, 0, privMagic, limited(pixel.BT2020)},
		{"YU12", v4l2.ColorspaceDCIP3, 0, 0, privMagic, limited(pixel.BT709)},
		{"YUYV", v4l2.ColorspaceJPEG, 0, 0, privMagic, full601},
		{"YUYV", v4l2.ColorspaceJPEG, 0, v4l2.QuantizationLimitedRange, privMagic, limited(pixel.BT601)},
		{"YUYV", v4l2.ColorspaceSRGB, v4l2.YCbCrEncoding709, v4l2.QuantizationFullRange, 0, limited(pixel.BT601)}, // not valid without the magic
		{"YUYV", v4l2.ColorspaceJPEG, v4l2.YCbCrEncoding709, v4l2.QuantizationLimitedRange, 0, full601},
		{"MJPG", v4l2.ColorspaceREC709, v4l2.YCbCrEncoding709, v4l2.QuantizationLimitedRange, privMagic, pixel.Colour{}},
		{"RGB3", v4l2.ColorspaceSRGB, 0, 0, privMagic, pixel.Colour{}},
	} {
		pix := v4l2.PixFormat{PixelFormat: fourCC(tt.format), Colorspace: tt.space, YcbcrEnc: tt.enc, Quantization: tt.quant, Priv: tt.prv}
		if got := colourOf(pix); got != tt.want {
			t.Errorf("colourOf(%s, colorspace %d, ycbcr_enc %d, quantization %d, priv %#x) = %v; want %v", tt.format, tt.space, tt.enc, tt.quant, tt.prv, got, tt.want)
		}
	}
}
