"""The device's half of pairing: a code becomes keys, over a network that anybody may listen to.

docs/network.md describes the protocol and what it protects from.
"""

import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import zmq

from assistantd.protocol import DeviceInfo
from assistantd.protocol_pairing import (
    EXTRA,
    Confirm,
    Confirmed,
    DaemonKey,
    FromDaemon,
    FromDevice,
    Offer,
    PairingMessageError,
    PasswordKind,
    Promise,
    Refused,
    Sealed,
    Start,
    Started,
    Welcome,
    decode_from_daemon,
    derive,
    encode,
    pairing_words,
    read_password,
    spake_device,
)
from clients.errors import AssistantError
from clients.i18n import _

DEFAULT_PORT = 5771
ANSWER_TIMEOUT_S = 15.0
"""For one message of the daemon's; a small machine computes for a good part of a second."""
CONNECT_TIMEOUT_S = 5.0

T = TypeVar("T", bound=FromDaemon)


class PairingFailed(AssistantError):  # noqa: N818 as clients.errors
    """This machine was not paired; the message says what to do.

    Attributes:
        reason: "unreachable", "wrong", "void", "expired", "busy", … for programs.
        tries_left: of the code, if it was wrong.
    """

    def __init__(self, reason: str, message: str, tries_left: int | None = None) -> None:
        super().__init__(message)
        self.reason, self.tries_left = reason, tries_left


@dataclass(frozen=True)
class Paired:
    """The keys that came of it; `words` are computed here, and not told by the daemon."""

    endpoint: str
    host: str
    """What the daemon's machine calls itself."""
    server_key: str
    public_key: str
    secret_key: str
    device: DeviceInfo
    words: str

    def __repr__(self) -> str:  # without the secret key
        return f"Paired(endpoint={self.endpoint!r}, device={self.device.id!r})"


def missing_package(missing: ModuleNotFoundError) -> AssistantError:
    """What to say when pairing's packages are not installed."""
    return AssistantError(
        _(
            "pairing needs the package {package!r}, which is not installed; "
            'install it with: pip install "assistantd[{extra}]"'
        ).format(package=missing.name, extra=EXTRA)
    )


def read_code(typed: str) -> tuple[PasswordKind, str]:
    """The code or the secret that was typed.

    Raises:
        AssistantError: it is neither.
    """
    try:
        return read_password(typed)
    except ValueError as problem:
        raise AssistantError(
            _("a code has six digits, as `assistant pair` shows them on the daemon's machine")
        ) from problem


def is_code(typed: str) -> bool:
    """Whether that is a code or a secret."""
    try:
        read_password(typed)
    except ValueError:
        return False
    return True


def pair(host: str, port: int, code: str, name: str) -> Paired:
    """Pair with the daemon at `host`.

    Args:
        port: of its encrypted conversations; pairing has the next one.
        code: the six digits, or the secret of the QR code.
        name: what this machine is to be called there.

    Raises:
        PairingFailed: nobody listens there, or it was refused, or what came was no honest daemon.
        AssistantError: a package is missing, `code` is none, or `name` is no text.
    """
    kind, password = read_code(code)
    try:
        name.encode()
    except UnicodeEncodeError as problem:
        raise AssistantError(
            _("the text is not valid Unicode ({problem}); re-encode it as UTF-8").format(
                problem=problem
            )
        ) from problem
    try:
        spake = spake_device(kind, password)
        start = Start(message=spake.start(), password=kind)
        public, secret = (key.decode() for key in zmq.curve_keypair())
        with _Line(host, port + 1) as line:
            started = line.ask(start, Started)
            keys = derive(spake, start, started)
            confirmed = line.ask(Confirm(proof=keys.proof("device")), Confirmed)
            if not keys.proves("daemon", confirmed.proof):
                raise _dishonest("its proof is wrong")
            offer = Offer(public_key=public, name=name, nonce=secrets.token_bytes(32))
            promise = keys.seal("device", Promise(hash=offer.promised()))
            daemon = keys.open("daemon", line.ask(Sealed(box=promise), Sealed).box, DaemonKey)
            box = keys.seal("device", offer)
            welcome = keys.open("daemon", line.ask(Sealed(box=box), Sealed).box, Welcome)
        words = pairing_words(daemon, offer)
    except ModuleNotFoundError as missing:
        raise missing_package(missing) from missing
    except PairingMessageError as problem:
        raise _dishonest(str(problem)) from problem
    if welcome.device.public_key != public:
        raise _dishonest("it knows this machine by another key")
    return Paired(
        endpoint=f"tcp://{_written(host)}:{welcome.port}",
        host=welcome.host,
        server_key=daemon.server_key,
        public_key=public,
        secret_key=secret,
        device=welcome.device,
        words=words,
    )


class _Line:
    """A DEALER to the pairing socket that sends one message and waits for one."""

    def __init__(self, host: str, port: int) -> None:
        _look_whether_open(host, port)
        self._host, self._closing = host, ExitStack()
        context = zmq.Context()
        self._closing.callback(context.destroy, linger=0)
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.set(zmq.IPV6, 1)
        self._dealer.set(zmq.MAXMSGSIZE, 4096)
        self._dealer.set(zmq.RECONNECT_IVL, -1)  # a conversation is of one connection
        self._monitor = self._dealer.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED,
            "inproc://pairing-monitor",
        )
        self._closing.callback(self._dealer.disable_monitor)
        self._dealer.connect(f"tcp://{_written(host)}:{port}")

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def ask(self, message: FromDevice, kind: type[T]) -> T:
        """Send `message`, and return the answer, which must be a `kind`."""
        self._dealer.send_multipart(encode(message))
        answer = decode_from_daemon(self._receive())
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Refused):
            raise PairingFailed(answer.reason, _explain(answer), answer.tries_left)
        raise PairingMessageError(f"{type(answer).__name__} does not come next")

    def _receive(self) -> list[bytes]:
        poller = zmq.Poller()
        poller.register(self._dealer, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        deadline = monotonic() + ANSWER_TIMEOUT_S
        while (left := deadline - monotonic()) > 0:
            events = dict(poller.poll(int(1000 * left) + 1))
            if self._dealer in events:
                return self._dealer.recv_multipart()
            if self._monitor in events:
                self._monitor.recv_multipart()  # whichever it is: the connection is no more
                poller.unregister(self._monitor)
                # what came before the end is still there to be read
                deadline = min(deadline, monotonic() + 0.5)
        text = _(
            "the daemon at {host} ended the conversation, or is not there any more; "
            "open a new code there with `assistant pair`, and try again"
        )
        raise PairingFailed("unreachable", text.format(host=self._host))


def _look_whether_open(host: str, port: int) -> None:
    """ZeroMQ would wait for ever for a port that nobody listens at."""
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except (socket.gaierror, UnicodeError) as problem:  # the latter: it is no name at all
        text = _("there is no machine {host!r} to be found; is the name right, the network on?")
        raise PairingFailed("unreachable", text.format(host=host)) from problem
    except OSError as problem:
        text = _(
            "nobody pairs at {host}, port {port} ({problem}). On the daemon's machine run "
            "`assistant network on`, then `assistant pair`, and try again while it waits"
        )
        message = text.format(host=host, port=port, problem=problem.strerror or problem)
        raise PairingFailed("unreachable", message) from problem


def _written(host: str) -> str:
    """As it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _explain(refused: Refused) -> str:
    """What the daemon said, in the user's language where this version knows the reason."""
    if refused.reason == "wrong" and refused.tries_left:
        text = _(
            "that is not the code; tries left: {n}. If you are sure that you typed it right, "
            "somebody in between may have answered: make it void with Ctrl-C in `assistant pair`"
        )
        return text.format(n=refused.tries_left)
    if refused.reason == "wrong":
        return _("that is not the code, and now it is void; open a new one with `assistant pair`")
    if refused.reason == "expired":
        return _("the code has expired; open a new one with `assistant pair`")
    return refused.message


def _dishonest(problem: str) -> PairingFailed:
    text = _(
        "what answers there does not know the code, or its messages were changed on their way "
        "({problem}); somebody may be in between. Nothing was stored; make the code void with "
        "Ctrl-C in `assistant pair`, and see docs/network.md"
    )
    return PairingFailed("dishonest", text.format(problem=problem))
