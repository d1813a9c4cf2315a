package fakev4l2

import "encoding/binary"

// Names, numbers and layouts of linux/videodev2.h, as far as the camera needs
// them; the manual is
// https://docs.kernel.org/userspace-api/media/v4l/user-func.html. An offset is
// named after the structure and its field.

// Request numbers: direction, size of the argument, 'V', number (linux/ioctl.h).
const (
	iow  = 1<<30 | 'V'<<8
	ior  = 2<<30 | 'V'<<8
	iowr = iow | ior

	vidiocQuerycap           = ior | sizeofCapability<<16 // number 0
	vidiocEnumFmt            = iowr | sizeofFmtdesc<<16 | 2
	vidiocGFmt               = iowr | sizeofFormat<<16 | 4
	vidiocSFmt               = iowr | sizeofFormat<<16 | 5
	vidiocReqbufs            = iowr | sizeofRequestbuffers<<16 | 8
	vidiocQuerybuf           = iowr | sizeofBuffer<<16 | 9
	vidiocQbuf               = iowr | sizeofBuffer<<16 | 15
	vidiocDqbuf              = iowr | sizeofBuffer<<16 | 17
	vidiocStreamon           = iow | sizeofInt<<16 | 18
	vidiocStreamoff          = iow | sizeofInt<<16 | 19
	vidiocGParm              = iowr | sizeofStreamparm<<16 | 21
	vidiocSParm              = iowr | sizeofStreamparm<<16 | 22
	vidiocEnuminput          = iowr | sizeofInput<<16 | 26
	vidiocGCtrl              = iowr | sizeofControl<<16 | 27
	vidiocSCtrl              = iowr | sizeofControl<<16 | 28
	vidiocQueryctrl          = iowr | sizeofQueryctrl<<16 | 36
	vidiocQuerymenu          = iowr | sizeofQuerymenu<<16 | 37
	vidiocGInput             = ior | sizeofInt<<16 | 38
	vidiocSInput             = iowr | sizeofInt<<16 | 39
	vidiocTryFmt             = iowr | sizeofFormat<<16 | 64
	vidiocEnumFramesizes     = iowr | sizeofFrmsizeenum<<16 | 74
	vidiocEnumFrameintervals = iowr | sizeofFrmivalenum<<16 | 75
)

// struct v4l2_capability
const (
	sizeofCapability = 104

	capabilityDriver       = 0
	capabilityCard         = 16
	capabilityBusInfo      = 48
	capabilityVersion      = 80
	capabilityCapabilities = 84
	capabilityDeviceCaps   = 88

	capVideoCapture = 0x00000001
	capExtPixFormat = 0x00200000
	capStreaming    = 0x04000000
	capDeviceCaps   = 0x80000000
)

// struct v4l2_fmtdesc
const (
	sizeofFmtdesc = 64

	fmtdescIndex       = 0
	fmtdescType        = 4
	fmtdescFlags       = 8
	fmtdescDescription = 12
	fmtdescPixelformat = 44

	fmtFlagCompressed = 0x1
)

// struct v4l2_frmsizeenum and v4l2_frmivalenum
const (
	sizeofFrmsizeenum = 44

	frmsizeIndex       = 0
	frmsizePixelFormat = 4
	frmsizeType        = 8
	frmsizeWidth       = 12
	frmsizeHeight      = 16

	sizeofFrmivalenum = 52

	frmivalIndex       = 0
	frmivalPixelFormat = 4
	frmivalWidth       = 8
	frmivalHeight      = 12
	frmivalType        = 16
	frmivalNumerator   = 20
	frmivalDenominator = 24

	typeDiscrete = 1
)

// struct v4l2_format with struct v4l2_pix_format in it
const (
	sizeofFormat = 208

	formatType      = 0
	pixWidth        = 8
	pixHeight       = 12
	pixPixelformat  = 16
	pixField        = 20
	pixBytesperline = 24
	pixSizeimage    = 28
	pixColorspace   = 32
	pixPriv         = 36
	pixYcbcrEnc     = 44
	pixQuantization = 48

	fieldNone      = 1
	privMagic      = 0xfeedcafe // the fields behind priv are valid
	colorspaceJPEG = 7
	colorspaceSRGB = 8
)

// struct v4l2_requestbuffers
const (
	sizeofRequestbuffers = 20

	requestCount        = 0
	requestType         = 4
	requestMemory       = 8
	requestCapabilities = 12

	bufCapSupportsMmap = 0x1
)

// struct v4l2_buffer, of 64-bit Linux
const (
	sizeofBuffer = 88

	bufferIndex     = 0
	bufferType      = 4
	bufferBytesused = 8
	bufferFlags     = 12
	bufferField     = 16
	bufferSeconds   = 24
	bufferMicros    = 32
	bufferSequence  = 56
	bufferMemory    = 60
	bufferOffset    = 64
	bufferLength    = 72

	bufTypeVideoCapture = 1
	memoryMmap          = 1

	bufFlagMapped             = 0x00000001
	bufFlagQueued             = 0x00000002
	bufFlagDone               = 0x00000004
	bufFlagError              = 0x00000040
	bufFlagTimestampMonotonic = 0x00002000
)

// struct v4l2_streamparm with struct v4l2_captureparm in it
const (
	sizeofStreamparm = 204

	streamparmType  = 0
	parmCapability  = 4
	parmNumerator   = 12
	parmDenominator = 16
	parmReadbuffers = 24

	capTimeperframe = 0x1000
)

// struct v4l2_input, and plain int arguments
const (
	sizeofInput = 80
	sizeofInt   = 4

	inputIndex = 0
	inputName  = 4
	inputType  = 36

	inputTypeCamera = 2
)

// struct v4l2_control, v4l2_queryctrl and v4l2_querymenu; each begins with an id
const (
	sizeofControl = 8

	controlValue = 4

	sizeofQueryctrl = 68

	queryctrlID      = 0
	queryctrlType    = 4
	queryctrlName    = 8
	queryctrlMinimum = 40
	queryctrlMaximum = 44
	queryctrlStep    = 48
	queryctrlDefault = 52

	sizeofQuerymenu = 44

	querymenuIndex = 4
	querymenuName  = 8

	ctrlFlagNext = 0x80000000 // in an id: the one after it
)

// arg is the argument of an ioctl, read and written in place.
type arg []byte

func (a arg) u32(offset int) uint32        { return binary.LittleEndian.Uint32(a[offset:]) }
func (a arg) put32(offset int, v uint32)   { binary.LittleEndian.PutUint32(a[offset:], v) }
func (a arg) put64(offset int, v uint64)   { binary.LittleEndian.PutUint64(a[offset:], v) }
func (a arg) putText(offset int, s string) { copy(a[offset:], s) }

// fourCC is the number that V4L2 gives to a pixel format of four characters.
func fourCC(name string) uint32 { return binary.LittleEndian.Uint32([]byte(name)) }
