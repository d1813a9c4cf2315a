#!/usr/bin/python3
"""A client of the bus in another language, written from docs/PROTOCOL.md alone.

    client.py readings ENDPOINT [--count N]     readings, as JSON lines
    client.py frame ENDPOINT --shm DIR          the newest frame of a simulated camera: {"seq", "number", "slot"}
    client.py vectors DIR                       run the protocol's test vectors

Needs Debian's python3-zmq and, for frames, libatomic1. Ends with 0 when it did
what it was asked for, and with 1 and a line on stderr when not.
"""

import argparse
import ctypes
import datetime
import fcntl
import json
import math
import mmap
import os
import re
import struct
import sys
import time


class Refused(Exception):
    """A message that is not accepted: malformed, or of another version."""

    def __init__(self, kind, why):
        super().__init__(f"{kind}: {why}")
        self.kind = kind


def want(condition, why):
    if not condition:
        raise Refused("malformed", why)


# Messages ------------------------------------------------------------------

SOURCE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
STREAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
KEY = re.compile(r"[a-z0-9_]+")
EPOCH = re.compile(r"[0-9a-f]{16}")
BOOT_ID = re.compile(r"[a-zA-Z0-9-]{1,64}")
FILE_ID = re.compile(r"(?!\.)[a-zA-Z0-9._+,=@-]{1,128}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)


def matches(pattern, text):
    return type(text) is str and pattern.fullmatch(text) is not None


def whole(value, least, most):
    return type(value) is int and least <= value <= most


def number(value, least=-math.inf, most=math.inf):
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def sized(text, most):
    return type(text) is str and 1 <= len(text.encode("utf-8", "surrogatepass")) <= most


def moment(text):
    if not matches(TIME, text):
        return False
    try:
        datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return True


def no_constant(word):
    raise ValueError(f"{word} is not JSON")


def once(pairs):
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def parse(text):
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", error) from error


def split(topic):
    words = topic.split("/")
    want(len(topic.encode("utf-8", "surrogatepass")) <= 128 and len(words) == 3, "topic is not kind/source/stream")
    kind, source, stream = words
    want(kind in BODIES and matches(SOURCE, source) and matches(STREAM, stream), "topic has a word that is none")
    return kind, source, stream


def decode(parts):
    """The header and the payload of a message."""
    want(len(parts) >= 2, "too few parts")
    want(len(parts[1]) <= 65536, "header too large")
    h = parse(parts[1])
    want(type(h) is dict, "header is no object")
    want(all(matches(KEY, key) for key in h) and len(h) <= 64, "header has keys that are none, or too many")
    want(whole(h.get("v"), 0, math.inf), "no version")
    if h["v"] != 1:
        raise Refused("version", h["v"])
    want(len(parts) <= 3, "too many parts")
    payload = parts[2] if len(parts) == 3 else b""
    want(len(payload) <= 1048576, "payload too large")
    check_header(h)
    want(parts[0] == f"{h['kind']}/{h['source']}/{h['stream']}".encode(), "topic and header differ")
    return h, payload


def check_header(h):
    want(type(h.get("kind")) is str and h["kind"] in BODIES, "kind")
    want(matches(SOURCE, h.get("source")) and matches(STREAM, h.get("stream")), "source or stream")
    want(sized(h.get("node"), 64) and not re.search(r"[\x00-\x1f\x7f]", h["node"]), "node")
    want(matches(EPOCH, h.get("epoch")) and h["epoch"] != "0" * 16, "epoch")
    want(matches(BOOT_ID, h.get("boot_id")), "boot_id")
    want(whole(h.get("seq"), 0, 2**53 - 1), "seq")
    want(moment(h.get("time")), "time")
    want(whole(h.get("boot_ns"), 0, 2**63 - 1), "boot_ns")
    want(type(h.get("synced")) is bool, "synced")


def check_reading(h):
    columns, values, bad = h.get("columns"), h.get("values"), h.get("bad")
    want(type(columns) is list and 1 <= len(columns) <= 256, "columns")
    want(all(matches(STREAM, c) for c in columns) and len(set(columns)) == len(columns), "columns")
    want(type(values) is list and len(values) == len(columns), "values")
    want(all(v is None or number(v) for v in values), "values")
    want(bad is None or type(bad) is dict, "bad")
    want(all(c in columns and type(why) is str and why for c, why in (bad or {}).items()), "bad")


# Of each plane: how many bytes a row takes for a width of two pixels, and how
# many rows of the picture share a row of the plane.
FORMATS = {"yuv420": [(2, 1), (1, 2), (1, 2)], "nv12": [(2, 1), (2, 2)], "yuyv": [(4, 1)], "rgb24": [(6, 1)], "mjpeg": []}


def check_geometry(g):
    form, width, height, planes = g.get("format"), g.get("width"), g.get("height"), g.get("planes")
    want(type(form) is str and form in FORMATS, "format")
    want(whole(width, 16, 16384) and whole(height, 16, 16384), "size of the picture")
    want(width % 2 == 0 or form in ("rgb24", "mjpeg"), "odd width")
    want(height % 2 == 0 or form not in ("yuv420", "nv12"), "odd height")
    want(number(g.get("hz"), 0, 1000000), "hz")
    for key, allowed in (("colour_range", ("limited", "full")), ("colour_matrix", ("bt601", "bt709", "bt2020"))):
        want(g.get(key) is None or form != "rgb24" and g[key] in allowed, key)
    want(type(planes) is list and len(planes) == len(FORMATS[form]), "planes")
    for plane, (pair, share) in zip(planes, FORMATS[form]):
        want(type(plane) is dict and all(whole(plane.get(k), 0, 2**30) for k in ("offset", "stride", "rows")), "plane")
        want(plane["stride"] >= width * pair // 2 and plane["rows"] >= height // share, "plane too small")
        want(plane["offset"] + plane["stride"] * plane["rows"] <= 2**30, "plane too large")


def check_frame(h):
    want(h.get("ring") == f"{h['source']}.{h['stream']}", "ring")
    want(whole(h.get("slot"), 0, 2**20 - 1) and whole(h.get("generation"), 0, 2**32 - 1), "slot or generation")
    want(whole(h.get("size"), 0, 2**30), "size")
    check_geometry(h)


def check_detection(h):
    want(matches(SOURCE, h.get("frame_source")), "frame_source")
    want(matches(EPOCH, h.get("frame_epoch")) and h["frame_epoch"] != "0" * 16, "frame_epoch")
    want(whole(h.get("frame_seq"), 0, 2**53 - 1) and moment(h.get("frame_time")), "frame_seq or frame_time")
    want(whole(h.get("frame_boot_ns"), 0, 2**63 - 1) and whole(h.get("covered_until"), 0, 2**63 - 1), "boot times")
    want(type(h.get("objects")) is list, "objects")
    for o in h["objects"]:
        want(type(o) is dict and sized(o.get("label"), 64) and number(o.get("score"), 0, 1), "object")
        box = o.get("box")
        want(type(box) is list and len(box) == 4 and all(number(x) for x in box), "box")
        want(box[0] <= box[2] and box[1] <= box[3], "box")
    gate = h.get("gate")
    want(gate is None or type(gate) is str and len(gate.encode()) <= 64, "gate")


def check_file(h):
    want(matches(FILE_ID, h.get("id")), "id")
    want(h.get("state") in ("born", "ready", "sent", "rejected", "quarantine", "gone"), "state")
    want("sidecar" in h and (h["sidecar"] is None or type(h["sidecar"]) is dict), "sidecar")


def check_state(h):
    want(type(h.get("program")) is str and type(h.get("status")) is str and type(h.get("ready")) is bool, "program, status or ready")
    want(whole(h.get("pid"), 0, 2**63 - 1) and whole(h.get("progress_ns"), 0, 2**63 - 1), "pid or progress_ns")
    want(type(h.get("counters")) is dict, "counters")
    for key in ("counters", "published", "dropped"):
        counts = h.get(key)
        want(counts is None or type(counts) is dict and all(whole(n, 0, 2**64 - 1) for n in counts.values()), key)
    gauges = h.get("gauges")
    want(gauges is None or type(gauges) is dict and all(number(n) for n in gauges.values()), "gauges")
    want(h.get("trouble") is None or type(h["trouble"]) is str, "trouble")
    for key in ("sources", "subscribers"):
        want(h.get(key) is None or type(h[key]) is list, key)


BODIES = {"reading": check_reading, "frame": check_frame, "detection": check_detection, "file": check_file, "state": check_state}


def parse_endpoint(endpoint):
    want(endpoint.startswith("ipc:///"), "endpoint is no absolute ipc:// path")
    path = endpoint[len("ipc://"):]
    want(len(path.encode()) <= 107 and not re.search(r"[\x00-\x1f\x7f]", path), "path of the endpoint")
    folder, _, base = path.rpartition("/")
    want(folder == "" or all(word not in ("", ".", "..") for word in folder.split("/")[1:]), "path is not clean")
    want(base.endswith(".ipc"), "path does not end in .ipc")
    source, dot, stream = base[:-len(".ipc")].partition(".")
    want(matches(SOURCE, source) and (not dot or matches(STREAM, stream)), "name of the endpoint")
    return folder or "/", source, stream


# Sockets -------------------------------------------------------------------

def subscribe(endpoint, topic):
    import zmq

    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 10)
    socket.setsockopt(zmq.MAXMSGSIZE, 1048576)
    socket.subscribe(topic)
    socket.subscribe("hello/client-py")
    socket.connect(endpoint)
    return socket


def readings(arguments):
    parse_endpoint(arguments.endpoint)
    socket = subscribe(arguments.endpoint, "reading/")
    expected, printed = {}, 0
    while arguments.count is None or printed < arguments.count:
        try:
            h, _ = decode(socket.recv_multipart())
            check_reading(h)
        except Refused as refused:
            print("refused:", refused, file=sys.stderr)
            continue
        series = (h["source"], h["stream"], h["epoch"])
        missed = h["seq"] - expected.get(series, h["seq"])
        expected[series] = h["seq"] + 1
        if missed:
            print("missed:", missed, "before", *series, h["seq"], file=sys.stderr)
        row = dict(zip(h["columns"], h["values"]))
        line = {key: h[key] for key in ("source", "stream", "epoch", "seq", "time", "boot_ns", "synced")}
        print(json.dumps({**line, "row": row}), flush=True)
        printed += 1


# The ring ------------------------------------------------------------------

def atomic(name, result, *arguments):
    function = getattr(ctypes.CDLL("libatomic.so.1"), name)
    function.restype, function.argtypes = result, arguments
    return function


ORDER = 5  # sequentially consistent
U64 = ctypes.c_uint64
FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux, native alignment


def lock(fd, byte, command, kind=fcntl.F_WRLCK):
    answer = fcntl.fcntl(fd, command, struct.pack(FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    return struct.unpack(FLOCK, answer)[0]


def take(fd, byte):
    try:
        lock(fd, byte, fcntl.F_OFD_SETLK)
    except BlockingIOError:
        return False
    return True


def up(n, unit):
    return -(-n // unit) * unit


class Ring:
    """One run of a ring, for one reader."""

    def __init__(self, folder, name, who, pins):
        self.load = atomic("__atomic_load_8", U64, ctypes.c_void_p, ctypes.c_int)
        self.fetch_and = atomic("__atomic_fetch_and_8", U64, ctypes.c_void_p, U64, ctypes.c_int)
        self.swap = atomic("__atomic_compare_exchange_8", ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, U64, ctypes.c_int, ctypes.c_int)
        self.fd = -1
        try:
            self.open(folder, name)
            self.register(who, pins)
        except BaseException:
            self.close()
            raise

    def open(self, folder, name):
        with open(f"{folder}/{name}.cur", encoding="ascii") as current:
            self.epoch = current.read(64).removesuffix("\n")
        want(matches(EPOCH, self.epoch), f"{name}.cur")
        path = f"{folder}/{name}.{self.epoch}"
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = os.open(path + ".ctl", os.O_RDWR | flags)
        self.ctl = mmap.mmap(self.fd, 0)
        data = os.open(path + ".dat", os.O_RDONLY | flags)
        try:
            self.dat = mmap.mmap(data, 0, prot=mmap.PROT_READ)
        finally:
            os.close(data)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.ctl))
        self.read_header(name)

    def read_header(self, name):
        magic, version, records, inside, slots, _, room, stride = struct.unpack_from("<8sIIQIIQQ", self.ctl)
        want((magic, version, records) == (b"perchrng", 1, 4096) and inside == int(self.epoch, 16), "no ring of this version")
        want(3 <= slots <= 2**20 and 1 <= room <= 2**30, "slots of the ring")
        want(stride == up(room, 4096 if room >= 4096 else 64), "stride of the ring")
        want(len(self.ctl) == up(4096 + 64 * slots, 65536) and len(self.dat) == up(slots * stride, 65536), "sizes of the ring's files")
        length = struct.unpack_from("<I", self.ctl, 192)[0]
        want(length <= 2048 - 196, "meta of the ring")
        self.slots, self.room, self.stride = slots, room, stride
        self.meta = check_meta(name, self.ctl[196:196 + length])

    def word(self, slot):
        return self.base + 4096 + 64 * slot

    def register(self, who, pins):
        begun = time.monotonic()
        while True:
            patience, why = 2, "somebody else registers"
            if take(self.fd, 32):
                try:
                    why = self.try_register(who, pins)
                finally:
                    lock(self.fd, 32, fcntl.F_OFD_SETLK, fcntl.F_UNLCK)
                patience = 0.05
            if why is None:
                return
            if time.monotonic() - begun > patience:
                sys.exit(f"register with the ring: {why}")
            time.sleep(0.001)

    def try_register(self, who, pins):
        held = 0
        for r in range(31):
            if lock(self.fd, 1 + r, fcntl.F_OFD_GETLK) != fcntl.F_UNLCK:
                held += struct.unpack_from("<I", self.ctl, 2048 + 64 * r + 4)[0]
        if held + pins + 2 > self.slots:
            return f"{self.slots} slots, its readers may hold {held} and the writer needs 2: no room for {pins} more"
        mine = next((r for r in range(31) if take(self.fd, 1 + r)), None)
        if mine is None:
            return "31 readers are there"
        self.number, self.bit = mine, 1 << mine
        for slot in range(self.slots):
            self.fetch_and(self.word(slot), ~self.bit, ORDER)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        struct.pack_into("<IIqQ40s", self.ctl, 2048 + 64 * mine, os.getpid(), pins, now, 2**64 - 1, who.encode())
        return None

    def pin(self, slot, generation):
        while True:
            seen = U64(self.load(self.word(slot), ORDER))
            if seen.value >> 32 != generation or seen.value >> 31 & 1:
                return False
            if self.swap(self.word(slot), ctypes.byref(seen), seen.value | self.bit, ORDER, ORDER):
                return True

    def unpin(self, slot):
        self.fetch_and(self.word(slot), ~self.bit, ORDER)

    def newest(self):
        """The slot of the newest message, pinned; None before the first."""
        while True:
            latest = self.load(self.base + 64, ORDER)
            if latest == 0:
                return None
            slot, generation = latest & 0xFFFFFFFF, latest >> 32
            want(slot < self.slots, "latest of the ring")
            if self.pin(slot, generation):
                return slot

    def record(self, slot):
        """seq and bytes used of a pinned slot."""
        seq, _, _, used = struct.unpack_from("<QqqI", self.ctl, 4096 + 64 * slot + 8)
        want(used <= self.room, "record of the ring")
        return seq, used

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)  # the maps, and with them the locks, go with this process


def check_meta(name, text):
    m = parse(text)
    want(type(m) is dict and type(m.get("topic")) is str, "meta")
    kind, source, stream = split(m["topic"])
    want(m.get("kind") == kind and name == f"{source}.{stream}", "meta is of another ring")
    if kind == "frame":
        check_geometry(m)
    return m


# The simulated camera's frame number ---------------------------------------

def crc8(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) & 0xFF ^ (0x07 if crc & 0x80 else 0)
    return crc


def read_number(pixels, geometry):
    step, first = {"yuv420": (1, 0), "nv12": (1, 0), "yuyv": (2, 0), "rgb24": (3, 1)}[geometry["format"]]
    plane = geometry["planes"][0]
    c = 8 * max(1, min(geometry["width"] // 640, geometry["height"] // 360))

    def bit(i, j):
        total = 0
        for y in range(j * c + c // 4, j * c + 3 * c // 4):
            row = plane["offset"] + y * plane["stride"] + first
            total += sum(pixels[row + x * step] for x in range(i * c + c // 4, i * c + 3 * c // 4))
        return total >= 128 * (c // 2) ** 2

    rows = [sum(bit(i, j) << (7 - i) for i in range(8)) for j in range(6)]
    if rows[0] != 0xB5 or crc8(rows[1:5]) != rows[5]:
        sys.exit(f"no frame number in the pixels: {bytes(rows).hex(' ')}")
    return int.from_bytes(bytes(rows[1:5]), "big")


def open_ring(folder, name, until):
    while True:
        try:
            return Ring(folder, name, "client-py", 1)
        except FileNotFoundError:
            if time.monotonic() > until:
                sys.exit(f"no ring {name} in {folder}")
            time.sleep(0.05)


def frame(arguments):
    _, source, stream = parse_endpoint(arguments.endpoint)
    want(stream, "endpoint is not of frames")
    until = time.monotonic() + arguments.timeout
    socket = subscribe(arguments.endpoint, f"frame/{source}/{stream}")
    while True:
        if not socket.poll(max(0, until - time.monotonic()) * 1000):
            sys.exit(f"no descriptor from {arguments.endpoint} in {arguments.timeout} s")
        h, _ = decode(socket.recv_multipart())
        if (h["source"], h["stream"]) == (source, stream):
            check_frame(h)
            break
    while socket.poll(0):
        socket.recv_multipart()
    ring = open_ring(arguments.shm, h["ring"], until)
    slot = ring.newest()
    if slot is None:
        sys.exit("the ring is empty, though a descriptor came")
    try:
        seq, used = ring.record(slot)
        start = slot * ring.stride
        with memoryview(ring.dat)[start:start + used] as pixels:
            answer = {"seq": seq, "number": read_number(pixels, ring.meta), "slot": slot}
    finally:
        ring.unpin(slot)
    print(json.dumps(answer))


# Vectors -------------------------------------------------------------------

def assemble(part):
    if type(part) is str:
        return part.encode()
    pieces = ((bytes.fromhex(p.get("hex", "")) + p.get("text", "").encode()) * p.get("times", 1) for p in part)
    return b"".join(pieces)


def run_message(case):
    h, payload = decode([assemble(part) for part in case["parts"]])
    if "body" in case or "accept" not in case:
        BODIES[h["kind"]](h)
    want("payload_hex" not in case or payload.hex() == case["payload_hex"], "payload")
    want("payload_bytes" not in case or len(payload) == case["payload_bytes"], "payload")
    return {**case.get("accept", {}), **case.get("body", {})}, h


def run_topic(case):
    return case.get("accept"), dict(zip(("kind", "source", "stream"), split(case["topic"])))


def run_endpoint(case):
    return case.get("accept"), dict(zip(("run_dir", "source", "stream"), parse_endpoint(case["endpoint"])))


def run_meta(case):
    return case.get("accept"), check_meta(case["ring"], case["meta"].encode())


def differs(run, case):
    """What is wrong with the outcome of a case, or None."""
    expected = case.get("refuse", "accepted")
    try:
        accept, got = run(case)
    except Refused as refused:
        return None if refused.kind == expected else f"{refused}; want it {expected}"
    if expected != "accepted":
        return f"accepted; want it {expected}"
    wrong = {key: got.get(key) for key in accept if key not in got or got[key] != accept[key]}
    return f"got {wrong}; want {accept}" if wrong else None


def vectors(arguments):
    runs = {"messages": run_message, "bodies": run_message, "topics": run_topic, "endpoints": run_endpoint, "meta": run_meta}
    failed = 0
    for name, run in runs.items():
        with open(f"{arguments.dir}/{name}.jsonl", encoding="utf-8") as file:
            cases = [json.loads(line) for line in file]
        for case in cases:
            why = differs(run, case)
            if why:
                failed += 1
                print(f"{name}: {case.get('name') or case.get('topic') or case.get('endpoint')}: {why}", file=sys.stderr)
        print(f"{name}: {len(cases)} cases")
    if failed:
        sys.exit(f"{failed} cases failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("readings")
    command.add_argument("endpoint")
    command.add_argument("--count", type=int)
    command.set_defaults(run=readings)
    command = commands.add_parser("frame")
    command.add_argument("endpoint")
    command.add_argument("--shm", required=True, metavar="DIR")
    command.add_argument("--timeout", type=float, default=10, metavar="SECONDS")
    command.set_defaults(run=frame)
    command = commands.add_parser("vectors")
    command.add_argument("dir")
    command.set_defaults(run=vectors)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except Refused as refused:
        sys.exit(str(refused))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
