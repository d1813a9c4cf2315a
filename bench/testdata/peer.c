// What the frame ring is measured against, in plain C over libzmq:
//
//	copy     memcpy of a frame into a slot of shared memory, and nothing else
//	message  the same memcpy, and a message of 200 bytes over ipc PUB/SUB
//	pixels   the whole frame in the message
//
//	peer writer DIR BYTES SLOTS HZ      then on stdin: gate N | copy N | message N | pixels N
//	peer reader DIR BYTES SLOTS         then on stdin: begin message | begin pixels, and end
//
// Each command is answered by one line of JSON: the CPU time of the process in
// it, and for each frame its number and two moments of CLOCK_BOOTTIME: of the
// writer, before the copy and when the frame is filled; of the reader, when it
// holds the frame and when it has verified a word on each of its pages.

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { PAGE = 4096, MESSAGE = 200, MOST = 8192 };

struct moment { uint64_t number; int64_t a, b; };

static struct moment log_[MOST];
static int logged;
static uint64_t bad;

static void die(const char *what) {
	fprintf(stderr, "peer: %s: %s\n", what, zmq_strerror(errno));
	exit(1);
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static double cpu_us(void) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static void answer(double cpu) {
	printf("{\"cpu_us\":%.0f,\"bad\":%" PRIu64 ",\"times\":[", cpu, bad);
	for (int i = 0; i < logged; i++)
		printf("%s[%" PRIu64 ",%" PRId64 ",%" PRId64 "]", i ? "," : "", log_[i].number, log_[i].a, log_[i].b);
	printf("]}\n");
	fflush(stdout);
	logged = 0;
	bad = 0;
}

static void note(uint64_t number, int64_t a, int64_t b) {
	if (logged < MOST)
		log_[logged++] = (struct moment){number, a, b};
}

static void mark(unsigned char *frame, size_t bytes, uint64_t number) {
	for (size_t at = 0; at < bytes; at += PAGE)
		memcpy(frame + at, &number, sizeof number);
}

static void verify(const unsigned char *frame, size_t bytes, uint64_t number) {
	for (size_t at = 0; at < bytes; at += PAGE)
		bad += memcmp(frame + at, &number, sizeof number) != 0;
}

static unsigned char *slots_of(const char *dir, size_t bytes, int prot) {
	char path[256];
	snprintf(path, sizeof path, "%s/peer.dat", dir);
	int fd = open(path, prot & PROT_WRITE ? O_RDWR | O_CREAT : O_RDONLY, 0600);
	if (fd < 0 || (prot & PROT_WRITE && posix_fallocate(fd, 0, bytes)))
		die("open the slots");
	unsigned char *mem = mmap(NULL, bytes, prot, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (mem == MAP_FAILED)
		die("map the slots");
	close(fd);
	return mem;
}

static void *socket_at(void *ctx, int type, const char *dir, const char *name) {
	char address[256];
	int one = 1, zero = 0, wait = 100;
	void *s = zmq_socket(ctx, type);
	if (!s)
		die("socket");
	snprintf(address, sizeof address, "ipc://%s/%s.ipc", dir, name);
	zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
	if (!strcmp(name, "pixels")) // whole frames must not queue up
		zmq_setsockopt(s, type == ZMQ_SUB ? ZMQ_RCVHWM : ZMQ_SNDHWM, &one, sizeof one);
	if (type == ZMQ_SUB) {
		zmq_setsockopt(s, ZMQ_RCVTIMEO, &wait, sizeof wait);
		zmq_setsockopt(s, ZMQ_SUBSCRIBE, "", 0);
	} else {
		zmq_setsockopt(s, ZMQ_XPUB_VERBOSE, &one, sizeof one); // each reader is to be counted
	}
	if (type == ZMQ_SUB ? zmq_connect(s, address) : zmq_bind(s, address))
		die(address);
	return s;
}

static void sleep_until(int64_t t) {
	struct timespec at = {t / INT64_C(1000000000), t % INT64_C(1000000000)};
	while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

// gate waits until n readers have subscribed, which an XPUB socket is told.
static void gate(void *s, int n) {
	char note[16];
	while (n > 0)
		if (zmq_recv(s, note, sizeof note, 0) > 0 && note[0] == 1)
			n--;
}

static void send_pixels(void *s, const unsigned char *source, size_t bytes, uint64_t number) {
	zmq_msg_t m;
	int64_t start = now();
	if (zmq_msg_init_size(&m, bytes))
		die("allocate message");
	memcpy(zmq_msg_data(&m), source, bytes);
	note(number, start, now());
	if (zmq_msg_send(&m, s, ZMQ_DONTWAIT) < 0)
		die("send pixels");
}

static void send_slot(void *s, unsigned char *slot, const unsigned char *source, size_t bytes, uint64_t number, uint64_t at) {
	uint64_t text[MESSAGE / 8] = {number, at};
	int64_t start = now();
	memcpy(slot, source, bytes);
	note(number, start, now());
	if (s && zmq_send(s, text, sizeof text, ZMQ_DONTWAIT) < 0)
		die("send message");
}

static int writer(const char *dir, size_t bytes, int slots, double hz) {
	void *ctx = zmq_ctx_new();
	void *message = socket_at(ctx, ZMQ_XPUB, dir, "message"), *pixels = socket_at(ctx, ZMQ_XPUB, dir, "pixels");
	size_t stride = (bytes + PAGE - 1) / PAGE * PAGE;
	unsigned char *mem = slots_of(dir, stride * slots, PROT_READ | PROT_WRITE), *source = malloc(stride);
	uint64_t number = 0;
	char line[64], mode[32];
	int n;
	memset(source, 7, stride);
	puts("{}");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) && sscanf(line, "%31s %d", mode, &n) == 2) {
		if (!strcmp(mode, "gate")) {
			gate(message, n);
			gate(pixels, n);
			answer(0);
			continue;
		}
		double cpu = cpu_us();
		int64_t period = 1e9 / hz, due = now();
		for (int i = 0; i < n; i++, number++) {
			mark(source, bytes, number);
			sleep_until(due += period);
			if (!strcmp(mode, "pixels"))
				send_pixels(pixels, source, bytes, number);
			else
				send_slot(strcmp(mode, "copy") ? message : NULL, mem + number % slots * stride, source, bytes, number, number % slots);
		}
		sleep_until(due + period);
		answer(cpu_us() - cpu);
	}
	return 0;
}

static int told_to_end(void) {
	struct pollfd p = {0, POLLIN, 0};
	char line[64];
	return poll(&p, 1, 0) == 1 && (!fgets(line, sizeof line, stdin) || !strcmp(line, "end\n"));
}

static void receive_slot(void *s, const unsigned char *mem, size_t bytes, size_t stride) {
	uint64_t text[MESSAGE / 8];
	if (zmq_recv(s, text, sizeof text, 0) != sizeof text)
		return;
	int64_t held = now();
	verify(mem + text[1] * stride, bytes, text[0]);
	note(text[0], held, now());
}

static void receive_pixels(void *s, size_t bytes) {
	zmq_msg_t m;
	uint64_t number;
	zmq_msg_init(&m);
	if (zmq_msg_recv(&m, s, 0) == (int)bytes) {
		int64_t held = now();
		memcpy(&number, zmq_msg_data(&m), sizeof number);
		verify(zmq_msg_data(&m), bytes, number);
		note(number, held, now());
	}
	zmq_msg_close(&m);
}

static int reader(const char *dir, size_t bytes, int slots) {
	void *ctx = zmq_ctx_new();
	void *message = socket_at(ctx, ZMQ_SUB, dir, "message"), *pixels = socket_at(ctx, ZMQ_SUB, dir, "pixels");
	size_t stride = (bytes + PAGE - 1) / PAGE * PAGE;
	unsigned char *mem = slots_of(dir, stride * slots, PROT_READ);
	char line[64];
	puts("{}");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		int whole = !strcmp(line, "begin pixels\n");
		double cpu = cpu_us();
		// Asked only when nothing comes, so that frames do not pay for it.
		for (int had = -1; had != logged || !told_to_end();) {
			had = logged;
			if (whole)
				receive_pixels(pixels, bytes);
			else
				receive_slot(message, mem, bytes, stride);
		}
		answer(cpu_us() - cpu);
	}
	return 0;
}

int main(int argc, char **argv) {
	setvbuf(stdin, NULL, _IONBF, 0); // poll must see what fgets has not taken
	if (argc == 6 && !strcmp(argv[1], "writer"))
		return writer(argv[2], strtoul(argv[3], NULL, 10), atoi(argv[4]), atof(argv[5]));
	if (argc == 5 && !strcmp(argv[1], "reader"))
		return reader(argv[2], strtoul(argv[3], NULL, 10), atoi(argv[4]));
	fprintf(stderr, "usage: peer writer DIR BYTES SLOTS HZ | peer reader DIR BYTES SLOTS\n");
	return 64;
}
