package onnx

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/perch-edge/perch/internal/onnxfile"
)

// Level is how far the runtime rewrites a network before it runs it: off, basic,
// extended or all (its documentation, "Graph Optimizations").
type Level string

// The levels.
const (
	Off      Level = "off"
	Basic    Level = "basic"
	Extended Level = "extended"
	All      Level = "all"
)

// UnmarshalText makes a Level a value of a topology.
func (l *Level) UnmarshalText(text []byte) error {
	if _, err := Level(text).ort(); err != nil {
		return err
	}
	*l = Level(text)
	return nil
}

func (l Level) ort() (ort.GraphOptimizationLevel, error) {
	switch l {
	case Off:
		return ort.GraphOptimizationLevelDisableAll, nil
	case Basic:
		return ort.GraphOptimizationLevelEnableBasic, nil
	case Extended:
		return ort.GraphOptimizationLevelEnableExtended, nil
	case All, "":
		return ort.GraphOptimizationLevelEnableAll, nil
	}
	return 0, fmt.Errorf("optimisation %.20q: want off, basic, extended or all", string(l))
}

// CPU is the execution provider that every library has.
const CPU = "cpu"

// Options say how a network is run. The zero value is one thread on the CPU, with
// all optimisations.
type Options struct {
	Threads  int    // 0 is 1
	Level    Level  // "" is All
	Provider string // "" is CPU; else as the library calls it, such as XNNPACK
}

// Port is an input or output of a network. A side that only the data decide is -1.
type Port struct {
	Name  string
	Type  Type
	Shape []int64
}

func (p Port) String() string { return fmt.Sprintf("%s %s %v", p.Name, p.Type, p.Shape) }

// whole says whether the model declares every side.
func (p Port) whole() bool { return len(p.Shape) > 0 && !slices.ContainsFunc(p.Shape, negative) }

func negative(side int64) bool { return side < 0 }

// Session is a network that is ready to run.
type Session struct {
	in      Port
	side    []Port // the other inputs
	outs    []Port
	ort     *ort.DynamicAdvancedSession
	opts    *ort.RunOptions
	meta    map[string]string
	input   tensor
	inputs  []ort.Value // of the picture, and of the other inputs
	outputs []ort.Value
	fixed   []bool      // outputs whose memory is used again
	read    [][]float32 // outputs of other types as numbers
}

// Open opens a model, the contents of an ONNX file. It fails when they are none,
// are cut short, want a newer runtime, or have no input that the package takes.
func (r *Runtime) Open(model []byte, o Options) (*Session, error) {
	if len(model) == 0 {
		return nil, errors.New("open model: no bytes: want an ONNX file")
	}
	s, err := open(o, source{
		ports: func() ([]ort.InputOutputInfo, []ort.InputOutputInfo, error) {
			return ort.GetInputOutputInfoWithONNXData(model)
		},
		session: func(in, out []string, so *ort.SessionOptions) (*ort.DynamicAdvancedSession, error) {
			return ort.NewDynamicAdvancedSessionWithONNXData(model, in, out, so)
		}})
	if err != nil {
		return nil, fmt.Errorf("open model of %d bytes: %w", len(model), err)
	}
	return s, nil
}

// OpenFile opens an ONNX file, and reads the files beside it in which it keeps its
// weights. It fails as Open does.
func (r *Runtime) OpenFile(path string, o Options) (*Session, error) {
	s, err := openFile(path, o)
	if err != nil && strings.Contains(err.Error(), "external tensors") {
		// The runtime wants small ones, such as shapes, in the model itself.
		whole, merging := onnxfile.Merge(path)
		if merging != nil {
			return nil, fmt.Errorf("open model: weights in another file: %w; export into one file", merging)
		}
		return r.Open(whole, o)
	}
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	return s, nil
}

func openFile(path string, o Options) (*Session, error) {
	return open(o, source{
		ports: func() ([]ort.InputOutputInfo, []ort.InputOutputInfo, error) {
			quick, err := Options{Threads: 1, Level: Off}.settings()
			if err != nil {
				return nil, nil, err
			}
			ins, outs, err := ort.GetInputOutputInfoWithOptions(path, quick)
			return ins, outs, errors.Join(err, quick.Destroy())
		},
		session: func(in, out []string, so *ort.SessionOptions) (*ort.DynamicAdvancedSession, error) {
			return ort.NewDynamicAdvancedSession(path, in, out, so)
		}})
}

// source is where a model comes from. The binding opens it twice: for what it
// takes and gives, and to run it.
type source struct {
	ports   func() (ins, outs []ort.InputOutputInfo, err error)
	session func(in, out []string, o *ort.SessionOptions) (*ort.DynamicAdvancedSession, error)
}

func open(o Options, from source) (s *Session, err error) {
	s = &Session{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	settings, err := o.settings()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, settings.Destroy()) }()
	ins, outs, err := from.ports()
	if err != nil {
		return s, fmt.Errorf("not a model that ONNX Runtime reads: %w", plain(err))
	}
	if err := s.choosePorts(ins, outs); err != nil {
		return s, err
	}
	inputs, outputs := []string{s.in.Name}, []string{}
	for _, p := range s.side {
		inputs = append(inputs, p.Name)
	}
	for _, p := range s.outs {
		outputs = append(outputs, p.Name)
	}
	if s.ort, err = from.session(inputs, outputs, settings); err != nil {
		return s, plain(err)
	}
	if s.opts, err = ort.NewRunOptions(); err != nil {
		return s, err
	}
	return s, s.readMetadata()
}

// origin is where in the runtime's own source an error arose, and what the binding
// was about.
var origin = regexp.MustCompile(`^Error (creating C session( from file)?|loading temporary session|running network): |/onnxruntime_src/\S+:\d+ .*?\) (\[with [^\]]*\] )?`)

// plain is an error of the runtime without its source's places, and with what
// helps against it, as far as that is known.
func plain(err error) error {
	text := origin.ReplaceAllString(err.Error(), "")
	has := func(part string) bool { return strings.Contains(text, part) }
	advice := ""
	switch {
	case has("_TRT"):
		advice = "; that operator is TensorRT's own: export without it (YOLOv6 and v7: without --end2end, or with --end2end --max-wh 640)"
	case has("IR version"), has("opset"):
		advice = "; the model is newer than this ONNX Runtime: export with an older opset (opset=17), or use a newer library"
	case has("is not a registered function/op"):
		advice = "; ONNX Runtime does not have that operator: export with ONNX's own operators only"
	}
	return errors.New(text + advice)
}

// choosePorts finds the input for the picture, the one with four sides, and the
// outputs that can be read.
func (s *Session) choosePorts(ins, outs []ort.InputOutputInfo) error {
	found := false
	for _, i := range ins {
		p := Port{i.Name, typeOf(i), i.Dimensions}
		if !found && (len(p.Shape) == 4 || len(ins) == 1) {
			found, s.in = true, p
		} else {
			s.side = append(s.side, p)
		}
	}
	if !found {
		return fmt.Errorf("inputs %v: want one for a picture, with four dimensions", ports(ins))
	}
	switch s.in.Type {
	case Float32, Float16, Uint8:
	default:
		return fmt.Errorf("input %s: want float32, float16 or uint8", s.in)
	}
	for _, o := range outs {
		// Single values, text, sequences and the like are of no use here and are not
		// asked for: the binding fails on some of them.
		p := Port{o.Name, typeOf(o), o.Dimensions}
		if p.Type.readable() && (len(p.Shape) > 0 || len(outs) == 1) {
			s.outs = append(s.outs, p)
		}
	}
	if len(s.outs) == 0 {
		return fmt.Errorf("outputs %v: want a tensor of numbers", ports(outs))
	}
	return nil
}

func ports(list []ort.InputOutputInfo) (all []Port) {
	for _, i := range list {
		all = append(all, Port{i.Name, typeOf(i), i.Dimensions})
	}
	return all
}

func (o Options) settings() (*ort.SessionOptions, error) {
	level, err := o.Level.ort()
	if err != nil {
		return nil, err
	}
	so, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	steps := []error{
		so.SetIntraOpNumThreads(max(o.Threads, 1)),
		so.SetInterOpNumThreads(1),
		so.SetGraphOptimizationLevel(level),
		so.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
	}
	if p := strings.ToLower(o.Provider); p != "" && p != CPU {
		if err := so.AppendExecutionProvider(o.Provider, nil); err != nil {
			steps = append(steps, fmt.Errorf("execution provider %q: this library does not have it: %w", o.Provider, err))
		}
	}
	if err := errors.Join(steps...); err != nil {
		return nil, errors.Join(err, so.Destroy())
	}
	return so, nil
}

func (s *Session) readMetadata() error {
	m, err := s.ort.GetModelMetadata()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	defer func() { _ = m.Destroy() }() // it has no error to return
	keys, err := m.GetCustomMetadataMapKeys()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	s.meta = map[string]string{}
	for _, k := range keys {
		v, _, err := m.LookupCustomMetadataMap(k)
		if err != nil {
			return fmt.Errorf("read metadata %.40q: %w", k, err)
		}
		s.meta[k] = v
	}
	return nil
}

// InputPort is the input for the picture, as the model declares it.
func (s *Session) InputPort() Port { return s.in }

// SidePorts are the other inputs.
func (s *Session) SidePorts() []Port { return s.side }

// OutputPorts are the network's outputs: as the model declares them, and from
// Shape on as they are.
func (s *Session) OutputPorts() []Port { return s.outs }

// Metadata is what the model's exporter noted in it; the caller must not change it.
func (s *Session) Metadata() map[string]string { return s.meta }

// Shape settles the shape of the picture's input, gives the other inputs the
// values of side, by name, allocates all tensors, and runs the network once on
// zeros. It fails where Run does, and when an input is given nothing.
func (s *Session) Shape(ctx context.Context, input []int64, side map[string][]float32) (err error) {
	if s.input != nil {
		return errors.New("shape input: it has a shape already")
	}
	if s.input, err = newInput(s.in.Type, input); err != nil {
		return fmt.Errorf("shape input %v: %w", input, err)
	}
	s.inputs = []ort.Value{s.input.value()}
	for _, p := range s.side {
		v, err := sideInput(p, side[p.Name])
		if err != nil {
			return err
		}
		s.inputs = append(s.inputs, v)
	}
	if err := s.allocate(); err != nil {
		return err
	}
	if err := s.Run(ctx); err != nil {
		return fmt.Errorf("first run with input %v: %w", input, err)
	}
	for i, v := range s.outputs {
		shape := v.GetShape()
		s.fixed[i] = s.fixed[i] && (s.outs[i].Type == Float16 || slices.Equal(shape, s.outs[i].Shape)) // some models declare another
		s.outs[i].Shape = shape
	}
	return nil
}

// allocate makes the outputs' memory where the model says how much it is. The
// rest is the runtime's to make: once, where the first run tells, and for each run
// where the model leaves it open, since then it may depend on the picture.
func (s *Session) allocate() error {
	s.outputs, s.fixed, s.read = make([]ort.Value, len(s.outs)), make([]bool, len(s.outs)), make([][]float32, len(s.outs))
	for i, p := range s.outs {
		s.fixed[i] = p.whole()
		if p.Type != Float16 {
			continue
		}
		// The binding cannot make one by itself.
		one := slices.Clone(p.Shape)
		if len(one) > 0 && one[0] < 0 {
			one[0] = 1
		}
		if !(Port{Shape: one}).whole() {
			return fmt.Errorf("output %s: its shape is open: export with fixed sizes (dynamic=False), or in float32", p)
		}
		v, err := newHalf(one)
		if err != nil {
			return fmt.Errorf("allocate output %s: %w", p, err)
		}
		s.outputs[i], s.fixed[i] = v.tensor, true
	}
	return nil
}

// Input is the picture's memory, to be filled before Run: of float32, whatever
// the network takes. Values for one of uint8 are 0 to 255.
func (s *Session) Input() []float32 { return s.input.numbers() }

// Output is output i of the last Run, as float32, valid until the next.
func (s *Session) Output(i int) []float32 {
	if t, ok := s.outputs[i].(*ort.Tensor[float32]); ok {
		return t.GetData()
	}
	s.read[i] = numbers(s.outputs[i], s.read[i][:0])
	return s.read[i]
}

// Run runs the network on what is in Input. When ctx ends first it returns ctx's
// error, as soon as the node that is being computed is done.
func (s *Session) Run(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), s.opts.UnsetTerminate(), s.discardOpen()); err != nil {
		return err
	}
	s.input.convert()
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = s.opts.Terminate() // fails for options that do not exist only
	})
	err := s.ort.RunWithOptions(s.inputs, s.outputs, s.opts)
	if !stop() {
		<-told
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("run network: %w", plain(err))
	}
	return nil
}

// discardOpen frees the outputs that the next run makes anew.
func (s *Session) discardOpen() (err error) {
	for i, v := range s.outputs {
		if v != nil && !s.fixed[i] {
			err = errors.Join(err, v.Destroy())
			s.outputs[i] = nil
		}
	}
	return err
}

// Close frees the session's memory. It must not be called while Run runs.
func (s *Session) Close() error {
	var errs []error
	for _, v := range append(s.inputs, s.outputs...) {
		if v != nil {
			errs = append(errs, v.Destroy())
		}
	}
	if s.opts != nil {
		errs = append(errs, s.opts.Destroy())
	}
	if s.ort != nil {
		errs = append(errs, s.ort.Destroy())
	}
	*s = Session{}
	return errors.Join(errs...)
}
