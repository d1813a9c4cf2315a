package v4l2cam

import (
	"github.com/vladimirvivien/go4vl/v4l2"

	"github.com/perch-edge/perch/pkg/pixel"
)

// privMagic in priv means that the fields after it are valid
// (V4L2_PIX_FMT_PRIV_MAGIC of videodev2.h); kernels before 3.17 do not set it.
const privMagic = 0xfeedcafe

// encodingSMPTE240M is V4L2_YCBCR_ENC_SMPTE240M, for which the library has no name.
const encodingSMPTE240M v4l2.YCbCrEncodingType = 8

// colourOf is the colour of a format that the driver has set. "Default" is resolved
// as by the macros V4L2_MAP_YCBCR_ENC_DEFAULT and V4L2_MAP_QUANTIZATION_DEFAULT of
// videodev2.h. It is zero for RGB, which has none, and for JPEG, whose colour is
// JFIF's whatever the driver reports.
func colourOf(pix v4l2.PixFormat) pixel.Colour {
	if name := fourCCName(pix.PixelFormat); name == "MJPG" || name == "RGB3" {
		return pixel.Colour{}
	}
	encoding, quantization := pix.YcbcrEnc, pix.Quantization
	if pix.Priv != privMagic {
		encoding, quantization = v4l2.YCbCrEncodingDefault, v4l2.QuantizationDefault
	}
	c := pixel.Colour{Range: pixel.Limited, Matrix: matrixOf(encoding, pix.Colorspace)}
	if quantization == v4l2.QuantizationFullRange || quantization == v4l2.QuantizationDefault && pix.Colorspace == v4l2.ColorspaceJPEG {
		c.Range = pixel.Full
	}
	return c
}

func matrixOf(encoding v4l2.YCbCrEncodingType, space v4l2.ColorspaceType) pixel.Matrix {
	if encoding == v4l2.YCbCrEncodingDefault {
		encoding = v4l2.ColorspaceToYCbCrEnc(space)
		if space == v4l2.ColorspaceSMPTE240M {
			encoding = encodingSMPTE240M
		}
	}
	switch encoding {
	case v4l2.YCbCrEncoding709, v4l2.YCbCrEncodingXV709, encodingSMPTE240M: // 0.212 and 0.087 are nearest to BT.709
		return pixel.BT709
	case v4l2.YCbCrEncodingBT2020, v4l2.YCbCrEncodingBT2020ConstLum:
		return pixel.BT2020
	}
	return pixel.BT601
}
