"""The wire protocol assistant/1: every message, and the only place that touches frames or JSON.

    client → daemon   [b"assistant/1", request_id, json]
    daemon → client   [b"assistant/1", request_id, json]      one or more per request

The daemon binds a ROUTER; a client connects a DEALER, or a REQ for one-shot scripts (a REQ puts
an empty frame in front, and the daemon answers it with exactly one message). `request_id` is
chosen by the client (1–64 bytes), echoed verbatim, and scopes streaming and cancellation. A body
is a UTF-8 JSON object with a "type". The last message of a request has "done": true or an "error".

This module knows nothing of sockets, and imports nothing of the daemon, so that clients may
import it. docs/protocol.md describes the same contract for people.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

PROTOCOL = b"assistant/1"
MAX_REQUEST_ID_BYTES = 64
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_PROBLEM_CHARS = 300
"""Of what is said about a message that cannot be read."""
MAX_SOCKET_PATH_BYTES = 103  # sun_path is 108 bytes on Linux, 104 on macOS
SOCKET_NAME = "assistantd.sock"
SYSTEM_SOCKET = Path("/run/assistantd") / SOCKET_NAME

ErrorCode = Literal[
    "bad_request",
    "too_large",
    "unauthorized",
    "not_found",
    "busy",
    "deadline",
    "over_budget",
    "model_error",
    "shutting_down",
    "internal",
]
FinishReason = Literal["stop", "length", "cancelled", "deadline"]

_SESSION_PATTERN: Final = "^[A-Za-z0-9._-]{1,64}$"
SessionId = Annotated[str, Meta(pattern=_SESSION_PATTERN)]
ModelName = Annotated[str, Meta(min_length=1, max_length=1024)]
StopStrings = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)
]
Text = Annotated[str, Meta(max_length=MAX_BODY_BYTES)]
DeviceId = Annotated[str, Meta(pattern=r"^[a-z2-7]{8}$")]
DeviceName = Annotated[str, Meta(min_length=1, max_length=64)]
DeviceKind = Literal["curve", "web", "api"]
"""A ZeroMQ client with a key pair; a browser with a cookie; a program with a bearer key."""
Rights = Literal["chat", "admin"]
"""`chat`: chat, complete, cancel, resume, ping, status, models list and show, and its own
sessions. `admin`: everything."""
PairingCode = Annotated[str, Meta(min_length=6, max_length=64)]


class ProtocolError(Exception):
    """A message that does not follow the protocol.

    Attributes:
        code: the error code to answer with.
        request_id: the id to answer to, where the frames held one.
    """

    def __init__(self, code: ErrorCode, message: str, request_id: bytes | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.request_id = request_id


# --- requests: client → daemon ---------------------------------------------------------------


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class _Request(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all requests; the tag field is "type"."""

    device: DeviceId | None = None
    """Make this request as a paired device, with its rights, limits and sessions. For local
    programs that speak for devices, as the web gateway does; the network may not say it."""


class _Sampling(_Request, kw_only=True):
    """Fields that `chat` and `complete` share. None means the daemon's configured default."""

    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=10.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """0 keeps every token."""
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-10.0, le=10.0)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-10.0, le=10.0)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-1000.0, le=1000.0)]] | None = None
    """Token id (as a JSON string) → amount added to its logit; at most 1,024 entries."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: StopStrings = []
    """The answer ends before the first of these; none of it is ever sent."""
    format: Literal["text", "json"] | dict[str, Any] = "text"
    """"json" for any JSON value, or a JSON schema as an object."""
    deadline_ms: Annotated[int, Meta(ge=1, le=86_400_000)] | None = None
    """From receipt. Before any text: error `deadline`; after: done with finish_reason deadline."""
    stream: bool = True


class Chat(_Sampling, tag="chat", kw_only=True):
    """A turn of conversation: `text` (optionally in a `session`), or a whole list of `messages`."""

    session: SessionId | None = None
    """Created at first use. The daemon keeps its messages; without one nothing is kept."""
    text: Text | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)] | None = None
    system: Text | None = None


class Complete(_Sampling, tag="complete", kw_only=True):
    """Continue `prompt` as it stands, without a chat template."""

    prompt: Text


class Cancel(_Request, tag="cancel", kw_only=True):
    """End another request of the same connection with finish_reason "cancelled"."""

    target: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST_ID_BYTES)]


class Sessions(_Request, tag="sessions", kw_only=True):
    """Conversations kept by the daemon."""

    op: Literal["list", "show", "rename", "delete"]
    session: SessionId | None = None
    title: Annotated[str, Meta(max_length=200)] | None = None
    """The new title, with `rename`."""


class Forget(_Request, tag="forget", kw_only=True):
    """Delete conversations, or parts of them, so that nothing of them stays in any file.

    Every condition that is given must be met; without any, `all` must be said. A question goes
    with its answer, by the time at which it was asked.
    """

    session: SessionId | None = None
    since: Annotated[float, Meta(ge=0, le=1e11)] | None = None
    """Unix time, seconds: what was asked then or later."""
    before: Annotated[float, Meta(ge=0, le=1e11)] | None = None
    """Unix time, seconds: what was asked earlier."""
    owner: DeviceId | None = None
    """Only the sessions of this device, which may have been revoked. A device with the rights
    `chat` can forget its own only, whatever it says."""
    all: bool = False
    preview: bool = False
    """Only tell what would be deleted: `conversations` of the reply."""


class Models(_Request, tag="models", kw_only=True):
    """Model files on the daemon's disk, and the one in memory."""

    op: Literal["list", "show", "pull", "remove", "load", "unload"]
    name: ModelName | None = None
    """A name from `list`; with `pull` also a URL or a Hugging Face ORG/REPO/FILE.gguf."""
    budget: Annotated[int, Meta(ge=0, le=1 << 60)] | None = None
    """With `show`: plan for a memory budget of so many bytes, 0 for none; else the daemon's."""


class Budget(_Request, tag="budget", kw_only=True):
    """Change the memory budget until the daemon restarts; `plan` of the reply says what it does."""

    bytes: Annotated[int, Meta(ge=0, le=1 << 60)]
    """0: no budget."""


class Status(_Request, tag="status", kw_only=True):
    """Version, model, uptime, queue, memory ledger, speed."""


class Ping(_Request, tag="ping", kw_only=True):
    """Is the daemon there, and is it ready?"""


class Reload(_Request, tag="reload", kw_only=True):
    """Read the settings again and let them hold, as SIGHUP does; `settings` of the reply tells
    what differs. Ends when the new model answers, if it is another one."""


class Shutdown(_Request, tag="shutdown", kw_only=True):
    """Stop the daemon as SIGTERM would."""


class Limits(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a device may use."""

    requests_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 60
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 2048
    """Of one answer; a request that asks for more gets so many."""
    concurrent: Annotated[int, Meta(ge=1, le=64)] = 4
    """Answers under way at the same time."""


class Resume(_Request, tag="resume", kw_only=True):
    """Go on with an answer whose connection was lost: for devices, whose answers are kept.

    The replies to this request are those that the target would have got: a delta with what of the
    text is missing, then the others. Ends with `not_found` if the daemon has no such answer (any
    more); then it was never asked, or is forgotten.
    """

    target: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST_ID_BYTES)]
    """Request id of the chat or complete, on this or another connection of the same device."""
    offset: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    """Characters of the text (Unicode code points) that the client has."""


class Devices(_Request, tag="devices", kw_only=True):
    """Who may use the assistant from elsewhere.

    `list`; `show`, `revoke`, `rename`, `limit` one; `add` a key for a program, kind `api`
    (the reply's `token` is told once and never again); `authenticate` a `token`; `watch`: a
    progress of stage `devices` now and with every change, until it is cancelled; `whoami`.
    """

    op: Literal[
        "list", "show", "revoke", "rename", "limit", "add", "authenticate", "watch", "whoami"
    ]
    id: DeviceId | None = None
    name: DeviceName | None = None
    """With `rename` and `add`."""
    rights: Rights | None = None
    """With `add` and `limit`."""
    limits: Limits | None = None
    """With `add` and `limit`."""
    token: Annotated[str, Meta(max_length=256)] | None = None
    """With `authenticate`."""


class Pair(_Request, tag="pair", kw_only=True):
    """Let a new device in. `open` makes a code that works once, for five minutes; `wait` ends when
    it was used or is void; `close` makes it void; `claim` uses it (for the web gateway).
    """

    op: Literal["open", "wait", "close", "claim"]
    rights: Rights = "chat"
    limits: Limits | None = None
    """With `open`: of the device that will use the code."""
    code: PairingCode | None = None
    """With `claim`: the code that was typed, or the secret of the QR code."""
    name: DeviceName | None = None
    """With `claim`: what the device calls itself."""


class Network(_Request, tag="network", kw_only=True):
    """Listen on the network, or no longer; kept over restarts. `status` tells what holds."""

    op: Literal["on", "off", "status"]
    address: Annotated[str, Meta(pattern=r"^[0-9A-Za-z.:*\[\]-]{1,64}$")] | None = None
    """With `on`: the interface's address; all of them without."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """With `on`: for encrypted conversations; the next one is for pairing."""


Request = (
    Chat
    | Complete
    | Cancel
    | Resume
    | Sessions
    | Forget
    | Models
    | Budget
    | Status
    | Ping
    | Reload
    | Shutdown
    | Devices
    | Pair
    | Network
)


# --- replies: daemon → client ----------------------------------------------------------------


class Delta(Struct, tag="delta"):
    """The next piece of an answer; never splits a UTF-8 character."""

    text: str


class Progress(Struct, tag="progress", omit_defaults=True):
    """Something longer than a moment is under way."""

    stage: Literal["queued", "download", "verify", "load", "prefill", "devices", "connection"]
    """`connection` is said by a client's own library, when the daemon cannot be reached."""
    message: str
    completed: int | None = None
    total: int | None = None
    """`completed` of `total`: bytes for download, verify and load, tokens for prefill."""


class Timings(Struct):
    """What an answer took. Milliseconds count from the moment the daemon received the request."""

    queued_ms: float
    prefill_ms: float
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values were still in the cache, so were not computed again."""
    first_token_ms: float
    decode_ms: float
    completion_tokens: int
    tokens_per_second: float
    """Of the decode phase."""


class SessionInfo(Struct, omit_defaults=True):
    """One conversation; `messages` only with `show`."""

    id: str
    title: str
    created_at: float
    """Unix time, seconds."""
    updated_at: float
    n_messages: int
    messages: list["StoredMessage"] | None = None
    system: str | None = None
    """The conversation's own system prompt, with `show`."""


class StoredMessage(Struct, omit_defaults=True):
    """A message as kept in a session."""

    role: Literal["system", "user", "assistant"]
    content: str
    created_at: float
    finish_reason: str | None = None
    """Of an assistant message; null on a user message means it was answered or needs no answer."""
    answered: bool = True
    """False on a user message whose answer was lost (the daemon was killed, or it failed)."""
    id: int | None = None
    """Ascending in the order in which they were stored; never given to another message."""
    model: str | None = None
    """That wrote an assistant message; not known of those that older versions stored."""


class ForgottenConversation(Struct, omit_defaults=True):
    """A conversation that would be forgotten, or a part of it."""

    id: str
    title: str
    n_messages: int
    """That go."""
    whole: bool = True
    """False: later or earlier messages stay."""


class ForgottenInfo(Struct, omit_defaults=True):
    """What was forgotten, or with `preview` would be."""

    sessions: int
    """Conversations that went as a whole."""
    messages: int
    """In all."""
    shortened: int = 0
    """Conversations that lost a part."""
    conversations: list[ForgottenConversation] | None = None
    """With `preview`: what they are called."""
    copies: list[str] = []
    """Databases that were set aside as damaged, which may hold the same words. `all` deletes them
    (with `preview`: would); otherwise they are still there."""


class RetentionInfo(Struct, omit_defaults=True):
    """What becomes of old messages."""

    days: int
    """They are removed when they are so old."""
    removed_at: float | None = None
    """When the daemon last looked for such and removed them, since its start; Unix time."""
    waits_until: float | None = None
    """The clock has leapt, and nothing is removed before it has gone on until then."""


class PlanInfo(Struct, omit_defaults=True):
    """How a model uses a memory budget. All in bytes, but for tokens."""

    budget: int | None
    """None: no budget."""
    owners: dict[str, int]
    """libraries, sessions, weights, stream, kv_cache, activations, margin: at most the budget."""
    resident_bytes: int
    """Weights that stay in memory."""
    streamed_bytes: int
    """Weights that are read from the disk for every token, or for several together."""
    kv_tokens: int
    """Tokens of conversation that fit in memory, over all sessions."""
    kv_type: Literal["f16", "q8"]
    tokens_per_second: float | None = None
    """To expect, from the measured speed of disk and memory; None if they were not measured."""
    smallest: int | None = None
    """The smallest budget that would do, if this one does not: then nothing else is set."""


class ModelInfo(Struct, omit_defaults=True):
    """A model on disk. Fields below `size_bytes` need the file to be readable; `show` has all."""

    name: str
    size_bytes: int
    loaded: bool = False
    default: bool = False
    path: str | None = None
    source: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    n_layers: int | None = None
    embedding_length: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    chat_template: bool | None = None
    license: str | None = None
    plan: PlanInfo | None = None
    """How it would use the memory budget asked for, or the daemon's."""
    problem: str | None = None
    """Why this file cannot be used, if it cannot."""


class QueueStatus(Struct):
    """Requests in the daemon."""

    active: int
    waiting: int
    capacity: int


class HistogramInfo(Struct):
    """How long things took since the daemon started."""

    bounds: list[float]
    """Upper bounds of the buckets in seconds, rising."""
    counts: list[int]
    """Of each bucket by itself, and last of what took longer than all bounds."""
    sum: float
    """Seconds in all."""


class Counters(Struct):
    """What the daemon has counted since it started."""

    requests: dict[str, dict[str, int]]
    """Type of request → how it ended → how many: `done`, `cancelled`, `gone` (its client was
    dropped), or an error code. What never happened is left out."""
    refused: int
    """Requests that were told `busy`."""
    bad_frames: int
    """Messages that are no request."""
    dropped_clients: int
    """Clients that went away, or did not read, with requests under way."""
    prompt_tokens: int
    """Of prompts that were begun, cached ones included."""
    cached_tokens: int
    """Of them, those whose keys and values were still there."""
    completion_tokens: int
    model_loads: int
    model_load_failures: int
    relief_steps: int
    """How often memory was given back because there was too much of it."""
    streamed_bytes: int
    """Weights that were read from the disk for passes, because they do not fit in memory."""
    queueing_s: HistogramInfo
    """From receipt until an answer is begun."""
    first_token_s: HistogramInfo
    """From receipt until the first token."""
    token_s: HistogramInfo
    """For each further token."""


class StatusInfo(Struct, omit_defaults=True):
    """The daemon at this moment."""

    version: str
    pid: int
    uptime_s: float
    state: Literal["starting", "loading", "ready", "no_model", "shutting_down"]
    model: ModelInfo | None
    queue: QueueStatus
    memory: dict[str, int]
    """Bytes: rss, rss_anonymous, peak_rss; with a model kv_used; under a cgroup's limit
    cgroup_usage and cgroup_limit."""
    requests_served: int
    tokens_generated: int
    tokens_per_second: float | None
    """Decode speed of the last finished answer."""
    message: str = ""
    budget: int | None = None
    """The memory budget in bytes; None: no budget."""
    plan: PlanInfo | None = None
    """How the loaded model uses it."""
    crash_report: str | None = None
    """File that tells how the run before crashed, if it did."""
    retention: RetentionInfo | None = None
    """None: messages are kept until they are forgotten."""
    counters: Counters | None = None
    """Not for devices with the rights `chat`."""


class DeviceInfo(Struct, omit_defaults=True):
    """Somebody who was paired."""

    id: str
    name: str
    kind: DeviceKind
    rights: Rights
    limits: Limits
    created_at: float
    """Unix time, seconds."""
    last_seen_at: float | None = None
    words: str = ""
    """Four words that the device was shown when it was paired, too."""
    public_key: str | None = None
    """Of kind `curve`: Z85."""


class PairingInfo(Struct, omit_defaults=True):
    """A code that a new device may use."""

    code: str
    """Six digits, to be typed."""
    secret: str
    """Long, for a QR code; does the same."""
    expires_at: float
    """Unix time, seconds."""
    hosts: list[str]
    """This machine's names and addresses on the network."""
    port: int | None = None
    """Where the pairing of ZeroMQ clients is listened for; None while the network is off."""
    fingerprint: str = ""
    """Four words for the daemon's public key."""


class NetworkInfo(Struct, omit_defaults=True):
    """How the daemon can be reached from elsewhere."""

    on: bool
    endpoint: str | None = None
    """tcp://ADDRESS:PORT that it listens on, with CURVE."""
    pairing: str | None = None
    """tcp://ADDRESS:PORT that pairing is listened for on, while a code is open."""
    public_key: str | None = None
    """The daemon's, Z85."""
    fingerprint: str = ""
    """Four words for it."""
    hosts: list[str] = []
    """This machine's names and addresses on the network."""


class SettingChange(Struct, omit_defaults=True):
    """A setting that is not what it was; values as in the configuration file."""

    key: str
    before: str
    after: str
    needs_restart: bool = False
    """It holds only after a restart; others do already."""


class Done(Struct, tag="done", omit_defaults=True, kw_only=True):
    """The last message of a request that succeeded; which fields it has depends on the request."""

    done: Literal[True] | UnsetType = UNSET  # always sent: see encode_reply
    # chat, complete
    text: str | None = None
    finish_reason: FinishReason | None = None
    session: SessionInfo | None = None  # chat with a session; sessions show, rename
    model: ModelInfo | None = None  # models show, pull, load
    timings: Timings | None = None
    # sessions list, models list
    sessions: list[SessionInfo] | None = None
    models: list[ModelInfo] | None = None
    plan: PlanInfo | None = None  # budget
    forgotten: ForgottenInfo | None = None  # forget; sessions delete
    # status, ping
    status: StatusInfo | None = None
    version: str | None = None
    message: str | None = None
    # devices, pair, network
    devices: list[DeviceInfo] | None = None  # devices list
    device: DeviceInfo | None = None  # of one; pair wait, claim
    token: str | None = None  # devices add, pair claim
    pairing: PairingInfo | None = None  # pair open
    network: NetworkInfo | None = None
    settings: list[SettingChange] | None = None  # reload


class ErrorInfo(Struct, omit_defaults=True):
    """`code` is for programs, `message` for people: it says what to do next."""

    code: ErrorCode
    message: str
    retry_after_ms: int | None = None


class Error(Struct, tag="error"):
    """The last message of a request that failed."""

    error: ErrorInfo


Reply = Delta | Progress | Done | Error


# --- codec -----------------------------------------------------------------------------------

_request_decoder = msgspec.json.Decoder(Request)
_reply_decoder = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


def encode_request(request_id: bytes, request: Request) -> list[bytes]:
    """Frames for a DEALER to send."""
    return [PROTOCOL, request_id, _encoder.encode(request)]


def decode_request(frames: list[bytes]) -> tuple[bytes, Request]:
    """Check and decode what a client sent (without identity and empty delimiter).

    Raises:
        ProtocolError: with the code to answer, and the request id if there is one.
    """
    if len(frames) != 3:
        raise ProtocolError(
            "bad_request", f"a request has 3 frames (version, id, JSON), got {len(frames)}"
        )
    version, request_id, body = frames
    if not 1 <= len(request_id) <= MAX_REQUEST_ID_BYTES:
        raise ProtocolError(
            "bad_request",
            f"a request id has 1 to {MAX_REQUEST_ID_BYTES} bytes, got {len(request_id)}",
        )
    if version != PROTOCOL:
        raise ProtocolError(
            "bad_request",
            f"this daemon speaks {PROTOCOL.decode()}, the request says {version[:32]!r}",
            request_id,
        )
    if len(body) > MAX_BODY_BYTES:
        raise ProtocolError(
            "too_large", f"a body has at most {MAX_BODY_BYTES} bytes, got {len(body)}", request_id
        )
    try:
        request = _request_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            "bad_request", f"cannot read the request: {_brief(error)}", request_id
        ) from error
    problem = _inconsistency(request)
    if problem:
        raise ProtocolError("bad_request", problem, request_id)
    return request_id, request


def _inconsistency(request: Request) -> str | None:
    """Rules between fields, which the types alone do not say."""
    if isinstance(request, Chat):
        if (request.text is None) == (request.messages is None):
            return "a chat has either `text` or `messages`"
        if request.messages is not None and request.session is not None:
            return (
                "a chat with a `session` takes `text`; "
                "`messages` is for callers that keep their own history"
            )
        if request.messages is not None and request.messages[-1].role != "user":
            return "the last of `messages` must have role user"
    if isinstance(request, Chat | Complete) and request.logit_bias is not None:
        if len(request.logit_bias) > 1024:
            return "`logit_bias` has at most 1,024 entries"
        if not all(k.isascii() and k.isdigit() and len(k) <= 10 for k in request.logit_bias):
            return "the keys of `logit_bias` are token ids"
    if isinstance(request, Sessions) and request.op != "list" and request.session is None:
        return f"sessions {request.op} needs a `session`"
    if isinstance(request, Sessions) and request.op == "rename" and not request.title:
        return "sessions rename needs a `title`"
    if isinstance(request, Forget):
        chosen = (request.session, request.since, request.before)
        if request.all == any(value is not None for value in chosen):
            return "forget needs `all`, or one of `session`, `since` and `before`"
    if isinstance(request, Devices):
        if request.op in ("show", "revoke", "rename", "limit") and request.id is None:
            return f"devices {request.op} needs an `id`"
        if request.op in ("rename", "add") and request.name is None:
            return f"devices {request.op} needs a `name`"
        if request.op == "authenticate" and request.token is None:
            return "devices authenticate needs a `token`"
    if isinstance(request, Pair) and request.op == "claim" and not (request.code and request.name):
        return "pair claim needs a `code` and a `name`"
    if isinstance(request, Models) and request.op not in ("list", "unload") and not request.name:
        return f"models {request.op} needs a `name`"
    return None


def _brief(problem: object) -> str:
    """What is wrong with a message, without most of what it repeats of it.

    It is logged, and kept for a sender who may not read it.
    """
    text = str(problem)
    if _SESSION_PATTERN in text:
        at = text.rpartition(" at ")[2].strip("`")
        return f"{at}: a session's name has 1 to 64 letters, digits, dots, hyphens and underscores"
    if len(text) > MAX_PROBLEM_CHARS:
        half = MAX_PROBLEM_CHARS // 2
        text = f"{text[:half]}…{text[-half:]}"  # the end says where it is
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def encode_reply(request_id: bytes, reply: Reply) -> list[bytes]:
    """Frames for the ROUTER to send (after identity and, for a REQ, the empty delimiter)."""
    if isinstance(reply, Done):
        reply.done = True
    return [PROTOCOL, request_id, _encoder.encode(reply)]


def decode_reply(frames: list[bytes]) -> tuple[bytes, Reply]:
    """Decode what the daemon sent.

    Raises:
        ProtocolError: the frames are not an assistant/1 reply.
    """
    if len(frames) != 3 or frames[0] != PROTOCOL:
        raise ProtocolError(
            "bad_request", f"not an {PROTOCOL.decode()} reply: {_brief(frames[:1])}"
        )
    try:
        return frames[1], _reply_decoder.decode(frames[2])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            "bad_request", f"cannot read the reply: {_brief(error)}", frames[1]
        ) from error


def to_json(value: object) -> bytes:
    """Any message of this module as one line of JSON, for `--json` and logs."""
    return _encoder.encode(value)


# --- where the daemon listens ----------------------------------------------------------------


def runtime_dir() -> Path:
    """The per-user folder for the socket: $XDG_RUNTIME_DIR, or a private one under /tmp."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given)
    # os.path: a sandbox that hides /run/user answers "permission denied", which Path raises
    if sys.platform != "darwin" and os.path.isdir(f"/run/user/{os.getuid()}"):
        return Path(f"/run/user/{os.getuid()}")
    return Path(os.environ.get("TMPDIR", "/tmp")) / f"assistantd-{os.getuid()}"


def default_endpoint() -> str:
    """$ASSISTANTD_ENDPOINT, else the user daemon's socket, else the system's if it exists."""
    given = os.environ.get("ASSISTANTD_ENDPOINT")
    if given:
        return given
    user_socket = runtime_dir() / SOCKET_NAME
    if not os.path.exists(user_socket) and os.path.exists(SYSTEM_SOCKET):
        return f"ipc://{SYSTEM_SOCKET}"
    return f"ipc://{user_socket}"
