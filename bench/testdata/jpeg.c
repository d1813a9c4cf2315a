// What perch's JPEG encoder is measured against: the same frame by the same
// library, straight from C.
//
//	jpeg FILE WIDTH HEIGHT QUALITY      then on stdin: encode N
//
// FILE begins with a frame of yuv420. Each command is answered by one line of
// JSON: the CPU time of the process in it, and the last picture's length.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <turbojpeg.h>

static void die(const char *what) {
	fprintf(stderr, "jpeg: %s\n", what);
	exit(1);
}

static double cpu_us(void) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

int main(int argc, char **argv) {
	if (argc != 5)
		die("usage: jpeg FILE WIDTH HEIGHT QUALITY");
	char line[64];
	int width = atoi(argv[2]), height = atoi(argv[3]), quality = atoi(argv[4]), n;
	size_t luma = (size_t)width * height, chroma = luma / 4;
	unsigned char *frame = malloc(luma + 2 * chroma), *out = malloc(tjBufSize(width, height, TJSAMP_420));
	FILE *in = fopen(argv[1], "rb");
	if (!frame || !out || !in || fread(frame, luma + 2 * chroma, 1, in) != 1)
		die("cannot read a frame");
	const unsigned char *planes[3] = {frame, frame + luma, frame + luma + chroma};
	int strides[3] = {width, width / 2, width / 2};
	tjhandle tj = tjInitCompress();
	if (!tj)
		die(tjGetErrorStr2(NULL));
	puts("{}");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) && sscanf(line, "encode %d", &n) == 1) {
		double before = cpu_us();
		unsigned long bytes = 0;
		for (int i = 0; i < n; i++) {
			bytes = tjBufSize(width, height, TJSAMP_420);
			if (tjCompressFromYUVPlanes(tj, planes, width, strides, height, TJSAMP_420, &out, &bytes, quality, TJFLAG_NOREALLOC))
				die(tjGetErrorStr2(tj));
		}
		printf("{\"cpu_us\":%.0f,\"bytes\":%lu}\n", cpu_us() - before, bytes);
		fflush(stdout);
	}
	return 0;
}
