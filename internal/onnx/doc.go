// Package onnx runs a neural network of an ONNX file by ONNX Runtime, whose
// shared library is found and loaded when it is first needed.
//
//	Find --> Load --> Runtime.Open(model) --> Session.Shape(input) --> fill Input(), Run --> Output(i)
//
// The library is libonnxruntime.so.1 of release 1.24 or later; "make setup"
// provides it. Find looks where it was told to, and nowhere else, if it was
// told; else in the file that PERCH_ONNXRUNTIME names; else in ../lib and . of the
// program's own folder, and in /usr/local/lib/perch, /usr/lib/perch, /usr/local/lib
// and the folders of Debian's libraries. Its error lists all that it tried.
//
// A process has one Runtime at a time, and closes its sessions before it. A
// Session is for one goroutine. It takes models that have one input for a picture,
// of float32, float16 or uint8, and small other inputs whose values do not change.
// It is filled with float32 and read as float32; what the network has in another
// type is converted for each run. Tensors are allocated once, by Shape, which also
// runs the network once: what a model cannot do is an error there and not at the
// first frame. Outputs whose size depends on the picture are allocated anew for
// each run.
//
// OpenFile also reads weights that a model keeps in files beside it; package
// onnxfile checks beforehand that they are whole and in the model's own folder.
//
// Run ends early when its context does: the runtime looks between two nodes of
// the network whether it is to go on. A single node that hangs can not be
// stopped; then Run does not return, the session must not be closed, and all that
// helps is the end of the process.
//
// By default a session takes one thread, and threads do not spin while they
// wait: the box has other work for its cores. The package is the one importer of
// github.com/yalue/onnxruntime_go.
package onnx
