"""The listening socket that systemd has opened for the daemon (sd_listen_fds(3)).

systemd listens from early on, and starts the daemon when the first client comes. What that client
has sent already waits in the socket. The path belongs to systemd: it is there before the daemon,
and stays when the daemon ends.
"""

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from assistantd.i18n import _

_FIRST = 3  # SD_LISTEN_FDS_START


class ActivationError(Exception):
    """What was handed over is no listening UNIX socket; the message says what to do."""


@dataclass(frozen=True)
class Inherited:
    """A listening socket that is not the daemon's own.

    Attributes:
        descriptor: belongs to whoever binds it.
        path: at which it listens.
    """

    descriptor: int
    path: Path


def inherited_socket(environ: MutableMapping[str, str] = os.environ) -> Inherited | None:
    """Take over the socket that was handed to this process; None if there is none.

    The variables that told of it are removed, so that no child believes that it is meant.

    Raises:
        ActivationError: there are several, or it is of another kind.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or count == "0":
        return None
    if count != "1":
        raise ActivationError(
            _(
                "systemd has handed over {n} sockets, where one is wanted; keep one ListenStream= "
                "in assistantd.socket"
            ).format(n=count)
        )
    os.set_inheritable(_FIRST, False)
    # looked at by a copy, which may be closed
    with socket.socket(fileno=os.dup(_FIRST)) as handed:
        name = handed.getsockname() if handed.family == socket.AF_UNIX else None
        listens = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if handed.type != socket.SOCK_STREAM or not listens or not isinstance(name, str):
            raise ActivationError(
                _(
                    "systemd has handed over a socket that is no listening UNIX stream socket with "
                    "a path; write ListenStream=/PATH into assistantd.socket"
                )
            )
        handed.setblocking(False)  # a client that has left again must not be waited for
    return Inherited(_FIRST, Path(name))
