// Package onnxfile writes small neural networks as ONNX files, and reads what ONNX
// files state about themselves.
//
//	Graph{Inputs, Nodes, Constants, Outputs, Metadata} --Encode--> the bytes of an .onnx file
//	an .onnx file --Inspect--> Info{Producer, Metadata, External, ...}, or what the file is instead
//
// Inspect needs no runtime, and neither the time nor the memory that a model takes
// to load. It tells a Git LFS pointer, a web page or half a download from a model,
// and checks that weights in other files are whole and in the model's own folder.
// Merge puts those into the model.
//
// Encode knows as much of the format as models made by hand need: operators with
// attributes of whole numbers, numbers, lists and graphs, and tensors of float32
// and int64. Field numbers are those of onnx.proto3 (github.com/onnx/onnx, IR
// version 8, operators of version 13); the encoding is Protocol Buffers'
// (protobuf.dev, "Encoding"). The same graph gives the same bytes. Whether the
// network makes sense is for whoever runs it to say: nothing fails here.
package onnxfile

import (
	"encoding/binary"
	"math"
	"strconv"
)

const (
	irVersion = 8
	opset     = 13
)

// Type is what a tensor is made of.
type Type int

// The types, numbered as in onnx.proto3.
const (
	Float   Type = 1
	Uint8   Type = 2
	Int32   Type = 6
	Int64   Type = 7
	Bool    Type = 9
	Float16 Type = 10
)

// Value is a named tensor that goes into or comes out of a graph. A side that is
// left open is -1.
type Value struct {
	Name  string
	Type  Type
	Shape []int64
}

// Constant is a named tensor of known values: Floats, or else Ints. No shape is a
// single value. With a File its values are the first of that file, beside the model.
type Constant struct {
	Name   string
	Shape  []int64
	Floats []float32
	Ints   []int64
	File   string
}

// Bytes are the values as the file of a Constant holds them.
func (c *Constant) Bytes() (raw []byte) {
	for _, v := range c.Floats {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	for _, v := range c.Ints {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return raw
}

// Node computes its outputs from its inputs by an operator.
type Node struct {
	Op         string
	In, Out    []string
	Attributes []Attribute
}

// Attribute is a setting of an operator; its value is an int64, a float32, an
// []int64 or a *Graph.
type Attribute struct {
	Name  string
	Value any
}

// Pair is a note in the file.
type Pair struct{ Key, Value string }

// Graph is a network. Nodes stand in an order in which they can be computed.
type Graph struct {
	Name            string
	Doc             string
	Inputs, Outputs []Value
	Constants       []Constant
	Nodes           []Node
	Metadata        []Pair // of the file; only the outermost graph's counts
}

// Encode is the file.
func Encode(g *Graph) []byte {
	var m message
	m.number(1, irVersion)
	m.text(2, "perch")
	m.text(6, g.Doc)
	m.bytes(7, g.encode())
	m.bytes(8, new(message).number(2, opset))
	for _, p := range g.Metadata {
		m.bytes(14, new(message).text(1, p.Key), new(message).text(2, p.Value))
	}
	return m
}

// message is the encoding of one, so far.
type message []byte

func (m *message) key(field, wire int) { *m = binary.AppendUvarint(*m, uint64(field<<3|wire)) }

func (m *message) number(field int, v int64) message {
	m.key(field, 0)
	*m = binary.AppendUvarint(*m, uint64(v))
	return *m
}

// bytes adds a field of the parts in a row.
func (m *message) bytes(field int, parts ...message) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	m.key(field, 2)
	*m = binary.AppendUvarint(*m, uint64(n))
	for _, p := range parts {
		*m = append(*m, p...)
	}
}

func (m *message) text(field int, s string) message {
	m.bytes(field, message(s))
	return *m
}

func (g *Graph) encode() (m message) {
	for _, n := range g.Nodes {
		m.bytes(1, n.encode())
	}
	m.text(2, g.Name)
	for _, c := range g.Constants {
		m.bytes(5, c.encode())
	}
	for _, v := range g.Inputs {
		m.bytes(11, v.encode())
	}
	for _, v := range g.Outputs {
		m.bytes(12, v.encode())
	}
	return m
}

func (n *Node) encode() (m message) {
	for _, name := range n.In {
		m.text(1, name)
	}
	for _, name := range n.Out {
		m.text(2, name)
	}
	m.text(4, n.Op)
	for _, a := range n.Attributes {
		m.bytes(5, a.encode())
	}
	return m
}

func (a *Attribute) encode() (m message) {
	m.text(1, a.Name)
	kind := int64(0)
	switch v := a.Value.(type) {
	case float32:
		kind = 1
		m.key(2, 5)
		m = binary.LittleEndian.AppendUint32(m, math.Float32bits(v))
	case int64:
		kind = 2
		m.number(3, v)
	case *Graph:
		kind = 5
		m.bytes(6, v.encode())
	case []int64:
		kind = 7
		for _, i := range v {
			m.number(8, i)
		}
	}
	m.number(20, kind)
	return m
}

func (c *Constant) encode() (m message) {
	for _, d := range c.Shape {
		m.number(1, d)
	}
	kind := Int64
	if c.Floats != nil {
		kind = Float
	}
	m.number(2, int64(kind))
	m.text(8, c.Name)
	if c.File == "" {
		m.bytes(9, c.Bytes())
		return m
	}
	for _, p := range []Pair{{"location", c.File}, {"offset", "0"}, {"length", strconv.Itoa(len(c.Bytes()))}} {
		m.bytes(13, new(message).text(1, p.Key), new(message).text(2, p.Value))
	}
	m.number(14, 1) // the values are elsewhere
	return m
}

func (v *Value) encode() (m message) {
	var shape, tensor, kind message
	for _, d := range v.Shape {
		if d < 0 {
			shape.bytes(1, new(message).text(2, "any"))
		} else {
			shape.bytes(1, new(message).number(1, d))
		}
	}
	tensor.number(1, int64(v.Type))
	tensor.bytes(2, shape)
	kind.bytes(1, tensor)
	m.text(1, v.Name)
	m.bytes(2, kind)
	return m
}
