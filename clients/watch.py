"""The assistant at a glance: a client for a watch, in one file, and the model for a port to one.

    python -m clients.watch "How far is the moon?"    one question, after the one that was kept
    python -m clients.watch                           each line is a question; Ctrl-C forgets it
        --server NAME     one of those that `assistant connect` stored; else the first
        --keys FILE       or JSON of one's own: endpoint, server_key, public_key, secret_key
        --wait SECONDS    for a connection (30); then the question is kept for the next time
        --stream          show the answer while it is written, which costs bytes
        --stats           tell the bytes on the wire, and the memory

It speaks to libzmq and leaves out pyzmq's Python, which would take 3 MB more: the zmq_* functions
are the same in every language. What a port has to do is in `Glance`: ask, resume, and keep one
question on the disk, so that it is asked once when the daemon is back, under a request id by which
the daemon knows that it is the same question. docs/protocol.md has the messages.
"""

import ctypes
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone takes a megabyte
    from typing import Any

MAX_CHARACTERS = 140
MAX_TOKENS = 80
SYSTEM = f"Answer in one or two short, plain sentences, with at most {MAX_CHARACTERS} characters."
MAX_REPLY_BYTES = 65_536
HANDSHAKE_BYTES = 567, 301  # of CURVE, there and back

# --- libzmq, with its own names and numbers --------------------------------------------------

PAIR, DEALER, POLLIN, DONTWAIT, SNDMORE = 0, 5, 1, 1, 2
RCVMORE, LINGER, RECONNECT_IVL, RECONNECT_IVL_MAX, IPV6 = 13, 17, 18, 21, 42
CURVE_PUBLICKEY, CURVE_SECRETKEY, CURVE_SERVERKEY = 48, 49, 50
HEARTBEAT_IVL, HEARTBEAT_TIMEOUT, CONNECT_TIMEOUT = 75, 77, 79
DISCONNECTED, HANDSHAKE_SUCCEEDED, HANDSHAKE_FAILED_AUTH = 0x0200, 0x1000, 0x4000
POINTER, INT, SIZE, BYTES = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
FUNCTIONS: "dict[str, tuple[Any, list[Any]]]" = {
    "zmq_ctx_new": (POINTER, []),
    "zmq_socket": (POINTER, [POINTER, INT]),
    "zmq_setsockopt": (INT, [POINTER, INT, BYTES, SIZE]),
    "zmq_getsockopt": (INT, [POINTER, INT, POINTER, POINTER]),
    "zmq_connect": (INT, [POINTER, BYTES]),
    "zmq_socket_monitor": (INT, [POINTER, BYTES, INT]),
    "zmq_send": (INT, [POINTER, BYTES, SIZE, INT]),
    "zmq_recv": (INT, [POINTER, POINTER, SIZE, INT]),
    "zmq_poll": (INT, [POINTER, INT, ctypes.c_long]),
    "zmq_close": (INT, [POINTER]),
    "zmq_errno": (INT, []),
    "zmq_strerror": (BYTES, [INT]),
}


NEEDED = {"endpoint", "server_key", "public_key", "secret_key"}


class WatchError(Exception):
    """What to tell the user."""


class PollItem(ctypes.Structure):
    """zmq_pollitem_t"""

    _fields_ = (
        ("socket", POINTER),
        ("fd", INT),
        ("events", ctypes.c_short),
        ("revents", ctypes.c_short),
    )


def load_libzmq() -> ctypes.CDLL:
    """The libzmq that pyzmq brings along, or was built with; leaves out its Python."""
    for folder in sys.path:
        for place in ("pyzmq.libs", "zmq/.dylibs", "zmq/backend/cython"):
            place = os.path.join(folder, place)
            for name in os.listdir(place) if os.path.isdir(place) else ():
                if name.startswith(("libzmq", "_zmq.")) and (".so" in name or ".dylib" in name):
                    library = ctypes.CDLL(os.path.join(place, name))
                    for function, (result, arguments) in FUNCTIONS.items():
                        getattr(library, function).restype = result
                        getattr(library, function).argtypes = arguments
                    return library
    raise ImportError("pyzmq is missing; run: pip install pyzmq")


zmq = load_libzmq()
context = zmq.zmq_ctx_new()
buffer = ctypes.create_string_buffer(MAX_REPLY_BYTES)
if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)  # what compiling this file took


def check(result: int) -> None:
    """Raise what a function of libzmq says by its result, if it failed."""
    if result < 0:
        raise WatchError(zmq.zmq_strerror(zmq.zmq_errno()).decode())


class Socket:
    """A ZeroMQ socket."""

    def __init__(self, kind: int, options: "dict[int, int | str]") -> None:
        self.handle = zmq.zmq_socket(context, kind)
        for option, value in {LINGER: 0, **options}.items():
            data = value.encode() if isinstance(value, str) else bytes(INT(value))
            check(zmq.zmq_setsockopt(self.handle, option, data, len(data)))

    def send(self, frames: "list[bytes]") -> None:
        """Queue a message."""
        for number, frame in enumerate(frames, 1):
            more = SNDMORE if number < len(frames) else 0
            check(zmq.zmq_send(self.handle, frame, len(frame), DONTWAIT | more))

    def receive(self) -> "list[bytes]":
        """The next message; [] if there is none. Frames are cut at MAX_REPLY_BYTES."""
        frames = []
        more, size = INT(1), SIZE(ctypes.sizeof(INT))
        while more.value:
            n_bytes = zmq.zmq_recv(self.handle, buffer, MAX_REPLY_BYTES, DONTWAIT)
            if n_bytes < 0:
                return []
            frames.append(ctypes.string_at(buffer, min(n_bytes, MAX_REPLY_BYTES)))
            zmq.zmq_getsockopt(self.handle, RCVMORE, ctypes.byref(more), ctypes.byref(size))
        return frames


def wire_bytes(frames: "list[bytes]") -> int:
    """What a message takes in a CURVE connection; TCP and IP come on top."""
    sizes = [len(frame) + 33 for frame in frames]
    return sum(size + (2 if size < 256 else 9) for size in sizes)


# --- the question on the disk ----------------------------------------------------------------


def load(path: str) -> "Any":
    """What a file of JSON holds; None if there is no file."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise WatchError(f"cannot read {path}: {problem}") from problem


def store(path: str, value: "Any") -> None:
    """Keep a value in a file, or remove it (None); the power may go at any moment."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        if value is None:
            if os.path.exists(path):  # or another one that runs has had its answer
                os.unlink(path)
        else:
            part = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(part, "wb") as file:
                file.write(json.dumps(value).encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.part", path)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    except OSError as problem:
        raise WatchError(f"cannot write {path}: {problem}") from problem


# --- asking ----------------------------------------------------------------------------------


class Glance:
    """One question at a time and its answer, over as many connections as that takes.

    Args:
        keys: `endpoint`, `server_key`, `public_key`, `secret_key`.
        path: of the file in which the question is kept until it is answered.
        stream: have the answer sent while it is written.

    Attributes:
        kept: the question that is not answered yet, its `id` and `request`; None if there is none.
        text: of its answer, as far as it has come.
        connected: whether there is a connection now.
        sent, received: bytes on the wire, without those of TCP/IP, and of heartbeats.
        connections: how often it connected.
    """

    def __init__(self, keys: "dict[str, str]", path: str, *, stream: bool = False) -> None:
        self.keys, self.path, self.stream = keys, path, stream
        self.kept = load(path)
        self.text = ""
        self.connected = False
        self.sent = self.received = self.connections = 0
        self._may_be_known = self.kept is not None  # to the daemon: nobody knows how it ended
        self._resume_id = ""
        self._sockets: list[Socket] = []  # the DEALER, and what watches it
        self._not_before = 0.0

    def ask(self, question: str) -> None:
        """Keep a question, which `turn` will ask."""
        request = {"type": "chat", "text": question, "system": SYSTEM, "max_tokens": MAX_TOKENS}
        request["seed"] = int.from_bytes(os.urandom(4), "big")  # asked again it is the same answer
        request["stream"] = self.stream
        self.kept = {"id": os.urandom(8).hex(), "request": request}
        store(self.path, self.kept)
        self._may_be_known, self.text = False, ""

    def forget(self) -> None:
        """It is answered, or nobody wants to know any more. A connection would cost the radio."""
        if self.kept is not None:
            store(self.path, None)
        self.kept = None
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection; nothing that waits in it is sent any more."""
        self.connected = False
        for socket in self._sockets:  # the DEALER first: libzmq waits for ever to tell of its end
            zmq.zmq_socket_monitor(socket.handle, None, 0)  # to a PAIR that nobody reads any more
            zmq.zmq_close(socket.handle)
        self._sockets = []

    def turn(self, milliseconds: int) -> "str | None":
        """Connect, ask or resume, as it is time for, and wait so long for what comes.

        Returns the whole answer once it is there; then it is forgotten here.

        Raises:
            WatchError: the daemon refuses this device, or the question; that is forgotten, too.
        """
        if time.monotonic() < self._not_before:
            time.sleep(milliseconds / 1000)
            return None
        if not self._sockets:
            self._connect()
        dealer, monitor = self._sockets
        items = [PollItem(socket.handle, 0, POLLIN, 0) for socket in self._sockets]
        zmq.zmq_poll((PollItem * 2)(*items), 2, milliseconds)
        while event := monitor.receive():
            kind = int.from_bytes(event[0][:2], sys.byteorder)
            if kind == HANDSHAKE_FAILED_AUTH:
                self.forget()
                raise WatchError("the daemon refuses this key; pair again: `assistant connect`")
            if kind == HANDSHAKE_SUCCEEDED:
                self.connected, self.connections = True, self.connections + 1
                self.sent += HANDSHAKE_BYTES[0]
                self.received += HANDSHAKE_BYTES[1]
                self._ask_or_resume()
            elif self.connected:
                self.hang_up()  # with fresh sockets nothing that ZeroMQ queued is sent twice
                return None
        while self._sockets and (frames := dealer.receive()):
            self.received += wire_bytes(frames)
            answer = self._replied(frames)
            if answer is not None:
                self.forget()
                return answer
        return None

    def _connect(self) -> None:
        options: dict[int, int | str] = {
            CURVE_SERVERKEY: self.keys["server_key"],
            CURVE_PUBLICKEY: self.keys["public_key"],
            CURVE_SECRETKEY: self.keys["secret_key"],
            IPV6: 1,
            HEARTBEAT_IVL: 5_000,
            HEARTBEAT_TIMEOUT: 15_000,
            CONNECT_TIMEOUT: 5_000,
            RECONNECT_IVL: 250,
            RECONNECT_IVL_MAX: 10_000,
        }
        try:
            dealer, monitor = self._sockets = [Socket(DEALER, options), Socket(PAIR, {})]
        except WatchError as problem:
            raise WatchError("the keys are damaged; pair again: `assistant connect`") from problem
        place = f"inproc://watch-{time.monotonic_ns()}".encode()
        events = DISCONNECTED | HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED_AUTH
        check(zmq.zmq_socket_monitor(dealer.handle, place, events))
        check(zmq.zmq_connect(monitor.handle, place))
        check(zmq.zmq_connect(dealer.handle, self.keys["endpoint"].encode()))

    def _send(self, request_id: str, request: "dict[str, Any]") -> None:
        body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        frames = [b"assistant/1", request_id.encode(), body]
        self.sent += wire_bytes(frames)
        self._sockets[0].send(frames)

    def _ask_or_resume(self) -> None:
        if self._may_be_known:
            self._resume_id = os.urandom(8).hex()
            resume = {"type": "resume", "target": self.kept["id"], "offset": len(self.text)}
            self._send(self._resume_id, resume)
        else:
            self._may_be_known, self.text = True, ""
            self._send(self.kept["id"], self.kept["request"])

    def _replied(self, frames: "list[bytes]") -> "str | None":
        """Take a reply. Returns the answer with the last one."""
        request_id = frames[1].decode()
        if request_id not in (self.kept["id"], self._resume_id):
            return None
        try:
            reply = json.loads(frames[2])
        except ValueError as problem:
            self.forget()
            raise WatchError("the daemon's reply is damaged, or too long") from problem
        if reply["type"] == "delta":
            self.text += reply["text"]
        elif reply["type"] == "done":
            return str(reply.get("text") or self.text)
        elif reply["type"] == "error":
            error = reply["error"]
            if error["code"] == "not_found" and request_id == self._resume_id:
                self._may_be_known = False  # it never came there, or the daemon has forgotten it
                self._ask_or_resume()
            elif error["code"] in ("busy", "shutting_down"):
                self._not_before = time.monotonic() + error.get("retry_after_ms", 2000) / 1000
                self._may_be_known = False  # as what it is: a question that was not answered
                self.hang_up()
            else:
                self.forget()
                raise WatchError(error["message"])
        return None


def at_a_glance(text: str) -> str:
    """So much of an answer as fits, up to the end of a sentence, or else of a word."""
    text = " ".join(text.split())
    if len(text) <= MAX_CHARACTERS:
        return text
    for end in range(MAX_CHARACTERS, MAX_CHARACTERS // 4, -1):
        if text[end - 1] in "。！？" or (text[end - 1] in ".!?…" and text[end] == " "):
            return text[:end]
    head = text[: MAX_CHARACTERS - 1]
    return (head.rpartition(" ")[0] or head) + "…"


# --- the program -----------------------------------------------------------------------------


def say(remark: str) -> None:
    """A remark, on stderr."""
    print(f"watch: {remark}", file=sys.stderr, flush=True)


def home(variable: str, default: str, name: str) -> str:
    """A file of ours in an XDG folder."""
    folder = os.environ.get(variable) or os.path.expanduser(default)
    return os.path.join(folder, "assistantd", name)


def find_keys(path: str, name: str) -> "dict[str, str]":
    """The keys in a file, of the server of that name, or of the first one."""
    found = load(path) or []
    for keys in found if isinstance(found, list) else [found]:
        if name in ("", keys.get("name")) and set(keys) >= NEEDED:
            return dict(keys)
    whose = f" for {name}" if name else ""
    raise WatchError(f"{path} has no keys{whose}; run `assistant connect` to pair first")


def show_answer(glance: Glance, wait_s: float, *, stay: bool) -> bool:
    """Print the answer when it comes. False without a connection for so long, if not to `stay`."""
    shown = ""
    patient_until: float = time.monotonic() + wait_s
    while glance.kept is not None:
        answer = glance.turn(1000)
        if glance.stream:
            text = answer or glance.text
            if text.startswith(shown):  # else it comes again, and is not yet so far
                print(text[len(shown) :], end="", flush=True)
                shown = text
        if answer is not None:
            print("" if glance.stream else at_a_glance(answer), flush=True)
        elif glance.connected:
            patient_until = time.monotonic() + wait_s
        elif time.monotonic() > patient_until:
            say("no connection; the question is kept, and asked when there is one")
            patient_until = float("inf")
            if not stay:
                glance.hang_up()
                return False
    return True


def main(arguments: "list[str]") -> int:
    """The command line; returns the exit code: 1 refused, 2 wrong usage, 3 no connection."""
    options = {"--server": "", "--keys": "", "--wait": "30"}
    flags = dict.fromkeys(("--stream", "--stats"), False)
    words = []
    while arguments:
        word = arguments.pop(0)
        if word in flags:
            flags[word] = True
        elif word in options and arguments:
            options[word] = arguments.pop(0)
        elif word.startswith("-"):
            print(__doc__, file=sys.stderr)
            return 2
        else:
            words.append(word)
    try:
        wait_s = float(options["--wait"])
    except ValueError:
        print(__doc__, file=sys.stderr)
        return 2
    path = options["--keys"] or home("XDG_CONFIG_HOME", "~/.config", "servers.json")
    kept_path = home("XDG_STATE_HOME", "~/.local/state", "watch.json")
    glance = Glance(find_keys(path, options["--server"]), kept_path, stream=flags["--stream"])
    code, questions = 0, iter([" ".join(words)] if words else sys.stdin)
    if glance.kept is not None:
        say(f"kept from before: {glance.kept['request']['text']}")
    while True:
        try:
            if glance.kept is None:
                question = next(questions, "").strip()
                if not question:
                    break
                glance.ask(question)
            if not show_answer(glance, wait_s, stay=not words):
                return 3
        except WatchError as problem:
            say(str(problem))
            code = 1
            if glance.kept is not None:
                break  # it was not the daemon that refused it
        except KeyboardInterrupt:
            glance.forget()
            code = 130
        if flags["--stats"]:
            with open("/proc/self/status") as status:
                memory = "".join(line.split()[1] for line in status if line.startswith("VmRSS"))
            counts = f"{glance.sent} bytes sent, {glance.received} received"
            say(f"{counts}, {glance.connections} connections, {memory} kB of memory")
    return code


if __name__ == "__main__":
    if not sys.flags.no_site:
        # what `site` imports takes a megabyte; all it found out is where packages are
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, sys.path)])
        os.execv(sys.executable, [sys.executable, "-S", *sys.orig_argv[1:]])
    try:
        sys.exit(main(sys.argv[1:]))
    except WatchError as problem:
        say(str(problem))
        sys.exit(1)
