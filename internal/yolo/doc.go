// Package yolo brings a frame into a YOLO network's input, and objects out of
// its output. It knows nothing of how the network is run.
//
//	pixel.Image --Letterbox.Fill--> tensor --(network)--> tensor --Layout.Decode--> []Object, in pixels of the frame
//
// # Families
//
// Layouts are told apart by the shapes and names of the network's tensors and by
// its exporter's notes (Recognise), and by the outputs for a test picture (Probe,
// Look). The input is [1 3 H W], C is the number of classes, and the cells are those
// of grids of 8, 16 and 32 pixels, N = H*W * (1/64 + 1/256 + 1/1024); networks
// with a grid of 4 or 64 more, or of 16 and 32 only, have other numbers.
//
//	yolox    output [1 N 5+C]    x, y from the cell, log w, log h, in cells; object, classes
//	                             (or decoded in pixels, which its values tell)
//	                             input B G R, 0..255, picture at the top left
//	yolov5   output [1 3N 5+C]   x, y, w, h in pixels of the input; object, classes
//	                             input R G B, 0..1, picture in the middle
//	yolov6   output [1 N 5+C]    as yolov5; the object is always 1; input as yolov5
//	yolov8   output [1 4+C N]    x, y, w, h in pixels of the input; classes (v8, v9, v11)
//	                             or [1 N 4+C]; input as yolov5
//	end2end  output [1 n 6]      x0, y0, x1, y1, score, class; or [n 7] with the picture's
//	                             number in front and class, score; or four outputs
//	                             num_dets, det_boxes, det_scores, det_classes; input as yolov5
//	rtdetr   output [1 300 4+C]  x, y, w, h as parts of the sides; classes; or boxes and class
//	                             scores apart; or labels, boxes and scores
//	                             input R G B, 0..1, stretched to fill it
//
// x and y are a box's middle; scores are 0..1, and an object's is object times
// class. Any family's boxes may be parts of the sides, 0..1, instead of pixels. The rest
// of the input is grey, 114. See the YOLOX paper (arXiv:2107.08430) and the exporters
// of YOLOX, YOLOv6 (meituan), RT-DETR (lyuwenyu) and Ultralytics. The last notes in the
// model's metadata what it is for ("task"), its classes ("names"), its size ("imgsz")
// and its suppression ("end2end", "nms" in "args").
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
// frame's edges. Values that are not finite are no candidates, and Seen tells of
// them and of scores over 1: a broken network is not one that sees nothing. At most
// MaxObjects are returned, the best first.
package yolo
