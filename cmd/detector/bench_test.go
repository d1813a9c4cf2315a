package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

// BenchmarkLook looks at frames of the sizes that cameras have with YOLOX-nano, and
// reports what preprocessing and postprocessing take, as a part of inference.
func BenchmarkLook(b *testing.B) {
	d := eyes(b, nano(b))
	for _, text := range []string{"640x480", "1280x720", "1920x1080"} {
		size, err := pixel.ParseSize(text)
		if err != nil {
			b.Fatal(err)
		}
		_, n, err := pixel.Layout(pixel.YUV420, size)
		if err != nil {
			b.Fatal(err)
		}
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i * 7919 >> 5)
		}
		img, err := pixel.NewImage(pixel.YUV420, size, data)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			var pre, run, post time.Duration
			for b.Loop() {
				begun := time.Now()
				if err := d.network.take(img); err != nil {
					b.Fatal(err)
				}
				taken := time.Now()
				if err := d.network.run(b.Context()); err != nil {
					b.Fatal(err)
				}
				ran := time.Now()
				objects, err := d.network.objects()
				if err != nil {
					b.Fatal(err)
				}
				d.named(objects)
				pre, run, post = pre+taken.Sub(begun), run+ran.Sub(taken), post+time.Since(ran)
			}
			ms := func(t time.Duration) float64 { return t.Seconds() * 1000 / float64(b.N) }
			b.ReportMetric(ms(pre), "pre-ms")
			b.ReportMetric(ms(run), "run-ms")
			b.ReportMetric(ms(post), "post-ms")
			b.ReportMetric(100*(pre+post).Seconds()/run.Seconds(), "%-of-run")
		})
	}
}
