"""Who may come in by the network's door: ZeroMQ asks here for each handshake (ZAP, RFC 27).

    request   [version, request id, domain, address, identity, mechanism, credentials…]
    reply     [version, request id, status, text, User-Id, metadata]

pyzmq's own authenticator runs an event loop in a thread of its own. This is answered by the thread
that serves, so that there is no moment at which the two see different devices.
"""

from collections.abc import Callable

import zmq

from assistantd.network.sparing import SparingLog

ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = b"assistantd"
_VERSION = b"1.0"
_KEY_BYTES = 32


class Zap:
    """Answers ZeroMQ's questions of one context.

    Args:
        is_known: whether a public key (Z85) may come in.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        is_known: Callable[[str], bool],
        log: SparingLog,
    ) -> None:
        self._is_known, self._log = is_known, log
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)

    def answer_all(self) -> None:
        """Answer what was asked."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self.socket.send_multipart(self._answer(self.socket.recv_multipart(zmq.NOBLOCK)))

    def close(self) -> None:
        """Answer no more: from now on nobody comes in."""
        self.socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        # it comes from ZeroMQ itself, which has checked its form
        _version, request_id, domain, address, _identity, mechanism, *credentials = question
        if (domain, mechanism) == (DOMAIN, b"CURVE") and len(credentials) == 1:
            (key,) = credentials
            name = _z85(key) if len(key) == _KEY_BYTES else ""
            if name and self._is_known(name):
                return [_VERSION, request_id, b"200", b"OK", name.encode(), b""]
            reason = "the key is unknown or was revoked"
        else:
            name, reason = "", "it has no key"
        self._log.warning(
            "refused on the network",
            address=address.decode("ascii", "replace"),
            key=name,
            reason=reason,
        )
        return [_VERSION, request_id, b"400", reason.encode(), b"", b""]


def _z85(key: bytes) -> str:
    from zmq.utils import z85

    return z85.encode(key).decode()
