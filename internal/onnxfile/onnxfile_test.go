package onnxfile

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The bytes by the encoding's own rules, field by field.
func TestEncode(t *testing.T) {
	got := Encode(&Graph{Name: "g", Doc: "d",
		Inputs:    []Value{{Name: "a", Type: Float, Shape: []int64{1, -1}}},
		Constants: []Constant{{Name: "c", Shape: []int64{2}, Floats: []float32{1, -2}}, {Name: "i", Ints: []int64{3}}},
		Nodes: []Node{{Op: "Op", In: []string{"a", ""}, Out: []string{"b"},
			Attributes: []Attribute{{"f", float32(0.5)}, {"n", int64(-1)}, {"l", []int64{7, 300}}, {"g", &Graph{Name: "x"}}}}},
		Metadata: []Pair{{"k", "v"}}})
	want := strings.Join([]string{
		"0808",           // ir_version 8
		"12057065726368", // producer_name "perch"
		"320164",         // doc_string "d"
		"3a8701",         // graph, 135 bytes
		"0a46",           // node, 70 bytes
		"0a0161", "0a00", // inputs "a", ""
		"120162",   // output "b"
		"22024f70", // op_type "Op"
		"2a0b" + "0a0166" + "150000003f" + "a00101",             // attribute f, type FLOAT
		"2a11" + "0a016e" + "18ffffffffffffffffff01" + "a00102", // n, INT
		"2a0b" + "0a016c" + "4007" + "40ac02" + "a00107",        // l, INTS
		"2a0b" + "0a0167" + "3203" + "120178" + "a00105",        // g, GRAPH
		"120167", // name "g"
		"2a11" + "0802" + "1001" + "420163" + "4a080000803f000000c0",                               // initializer c
		"2a0f" + "1007" + "420169" + "4a080300000000000000",                                        // initializer i
		"5a16" + "0a0161" + "1211" + "0a0f" + "0801" + "120b" + "0a020801" + "0a0512" + "03616e79", // input a
		"4202100d",                   // opset_import, version 13
		"7206" + "0a016b" + "120176", // metadata
	}, "")
	if hex.EncodeToString(got) != want {
		t.Errorf("Encode() = %x; want\n%s", got, want)
	}
}
