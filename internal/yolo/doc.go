// Package yolo brings a frame into a YOLO network's input, and objects out of
// its output. It knows nothing of how the network is run.
//
//	pixel.Image --Letterbox.Fill--> tensor --(network)--> tensor --Layout.Decode--> []Object, in pixels of the frame
//
// # Families
//
// Three layouts are told apart by the shapes of the network's tensors, where the
// input is [1 3 H W], C is the number of classes, and the cells are those of
// grids of 8, 16 and 32 pixels, N = H*W * (1/64 + 1/256 + 1/1024):
//
//	yolox   output [1 N 5+C]    x, y from the cell, log w, log h, in cells; object, classes
//	                            (or decoded in pixels, which its values tell)
//	                            input B G R, 0..255, picture at the top left
//	yolov5  output [1 3N 5+C]   x, y, w, h in pixels of the input; object, classes
//	                            input R G B, 0..1, picture in the middle
//	yolov8  output [1 4+C N]    x, y, w, h in pixels of the input; classes (v8, v9, v11)
//	                            input as yolov5
//
// x and y are a box's middle; scores are 0..1, and an object's is object times
// class. The rest of the input is grey, 114. See the YOLOX paper (arXiv:2107.08430)
// and the exporters of YOLOX and Ultralytics. The latter note in the model's
// metadata what it is for ("task"), its classes ("names") and its size ("imgsz").
//
// # From pixels to tensor
//
// A frame is read once, where it lies: each output row takes its two rows of each
// plane, scales them (bilinear, pixels as areas: sample i is at i+0.5), converts them to
// RGB and writes them as float32. All of it is in whole numbers with 8 bits of
// fraction, so that every machine gets the same tensor. A chroma sample is that of
// each pixel it stands for, as video's usual converters have it.
//
// # From tensor to objects
//
// Candidates under their label's threshold are dropped; of those of one class that
// overlap, the best stays (non-maximum suppression, greedy). Boxes are cut at the
// frame's edges. Values that are not finite are no candidates: a broken network
// sees nothing. At most MaxObjects are returned, the best first.
package yolo
