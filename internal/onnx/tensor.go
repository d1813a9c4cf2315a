package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	ort "github.com/yalue/onnxruntime_go"
)

// Type is what a tensor is made of; empty is none that the package reads.
type Type string

// The types.
const (
	Float32 Type = "float32"
	Float64 Type = "float64"
	Float16 Type = "float16"
	Uint8   Type = "uint8"
	Int8    Type = "int8"
	Int32   Type = "int32"
	Int64   Type = "int64"
)

func typeOf(i ort.InputOutputInfo) Type {
	if i.OrtValueType != ort.ONNXTypeTensor {
		return ""
	}
	switch i.DataType {
	case ort.TensorElementDataTypeFloat:
		return Float32
	case ort.TensorElementDataTypeDouble:
		return Float64
	case ort.TensorElementDataTypeFloat16:
		return Float16
	case ort.TensorElementDataTypeUint8:
		return Uint8
	case ort.TensorElementDataTypeInt8:
		return Int8
	case ort.TensorElementDataTypeInt32:
		return Int32
	case ort.TensorElementDataTypeInt64:
		return Int64
	}
	return ""
}

func (t Type) readable() bool { return t != "" }

func (t Type) String() string {
	if t == "" {
		return "of another type"
	}
	return string(t)
}

// tensor is an input that is filled with float32 and given to the network in the
// type that it takes.
type tensor interface {
	numbers() []float32
	convert() // before each run
	value() ort.Value
}

func newInput(t Type, shape []int64) (tensor, error) {
	switch t {
	case Float16:
		return newHalf(shape)
	case Uint8:
		v, err := ort.NewEmptyTensor[uint8](ort.NewShape(shape...))
		if err != nil {
			return nil, err
		}
		return &uint8s{v, make([]float32, len(v.GetData()))}, nil
	}
	v, err := ort.NewEmptyTensor[float32](ort.NewShape(shape...))
	if err != nil {
		return nil, err
	}
	return floats{v}, nil
}

// floats need no conversion.
type floats struct{ tensor *ort.Tensor[float32] }

func (f floats) numbers() []float32 { return f.tensor.GetData() }
func (f floats) convert()           {}
func (f floats) value() ort.Value   { return f.tensor }

type uint8s struct {
	tensor *ort.Tensor[uint8]
	from   []float32
}

func (b *uint8s) numbers() []float32 { return b.from }
func (b *uint8s) value() ort.Value   { return b.tensor }
func (b *uint8s) convert() {
	to := b.tensor.GetData()[:len(b.from)]
	for i, v := range b.from {
		to[i] = uint8(min(max(v+0.5, 0), 255))
	}
}

// half is a tensor of float16.
type half struct {
	tensor *ort.CustomDataTensor
	from   []float32
}

func newHalf(shape []int64) (*half, error) {
	s := ort.NewShape(shape...)
	if err := s.Validate(); err != nil {
		return nil, err
	}
	n := s.FlattenedSize()
	if n < 1 || n > math.MaxInt32 {
		return nil, fmt.Errorf("shape %v: want 1 to %d values", shape, math.MaxInt32)
	}
	v, err := ort.NewCustomDataTensor(s, make([]byte, 2*n), ort.TensorElementDataTypeFloat16)
	if err != nil {
		return nil, err
	}
	return &half{tensor: v, from: make([]float32, n)}, nil
}

func (h *half) numbers() []float32 { return h.from }
func (h *half) value() ort.Value   { return h.tensor }
func (h *half) convert() {
	to := h.tensor.GetData()
	for i, v := range h.from {
		binary.NativeEndian.PutUint16(to[2*i:], toHalf(v))
	}
}

// toHalf rounds to the nearest float16 (IEEE 754, 5 bits of exponent, 10 of
// fraction), ties to even.
func toHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	switch b &= 0x7fffffff; {
	case b > 0x7f800000:
		return sign | 0x7e00 // not a number
	case b >= 0x477ff000:
		return sign | 0x7c00 // over 65504: infinite
	case b < 0x38800000: // under 2^-14: the addition rounds to multiples of 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-math.Float32bits(0.5))
	}
	b += 0xfff + b>>13&1
	return sign | uint16((b-0x38000000)>>13)
}

func fromHalf(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0:
		v := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// numbers appends a tensor's values to list.
func numbers(v ort.Value, list []float32) []float32 {
	switch t := v.(type) {
	case *ort.Tensor[float32]:
		return append(list, t.GetData()...)
	case *ort.Tensor[float64]:
		return appendNumbers(list, t.GetData())
	case *ort.Tensor[int64]:
		return appendNumbers(list, t.GetData())
	case *ort.Tensor[int32]:
		return appendNumbers(list, t.GetData())
	case *ort.Tensor[uint8]:
		return appendNumbers(list, t.GetData())
	case *ort.Tensor[int8]:
		return appendNumbers(list, t.GetData())
	case *ort.CustomDataTensor: // of float16: see choosePorts
		data := t.GetData()
		for i := 0; i+1 < len(data); i += 2 {
			list = append(list, fromHalf(binary.NativeEndian.Uint16(data[i:])))
		}
	}
	return list
}

func appendNumbers[T float64 | int64 | int32 | uint8 | int8](list []float32, values []T) []float32 {
	for _, v := range values {
		list = append(list, float32(v))
	}
	return list
}

// sideInput makes an input that is not the picture.
func sideInput(p Port, values []float32) (ort.Value, error) {
	shape := append([]int64{}, p.Shape...)
	n := int64(1)
	for i, side := range shape {
		if side < 0 && i == 0 {
			shape[i] = 1
		}
		n *= shape[i]
	}
	if int64(len(values)) != n || n < 1 {
		return nil, fmt.Errorf("input %s: no value is known for it: want a model whose only input is the picture", p)
	}
	switch p.Type {
	case Int64:
		return ort.NewTensor(ort.NewShape(shape...), converted[int64](values))
	case Int32:
		return ort.NewTensor(ort.NewShape(shape...), converted[int32](values))
	case Float32:
		return ort.NewTensor(ort.NewShape(shape...), values)
	}
	return nil, fmt.Errorf("input %s: want int32, int64 or float32", p)
}

func converted[T int64 | int32](values []float32) (list []T) {
	for _, v := range values {
		list = append(list, T(v))
	}
	return list
}
