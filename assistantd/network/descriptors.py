"""What can be done with the descriptors of ZeroMQ's connections, which it tells of and keeps.

`port` is that of the door: nothing that is not at this port is ever touched.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

Peer = tuple[str, int]
"""Address and port of the other end."""
_BYTES_RECEIVED = 128  # where tcpi_bytes_received is in Linux's struct tcp_info


@contextlib.contextmanager
def connection_of(descriptor: int, port: int) -> Iterator[socket.socket | None]:
    """The connection of a descriptor that is ZeroMQ's, if it still is one of the door's.

    ZeroMQ may close it at any moment, and another file may get its number. So it is duplicated
    first, and then looked at: at worst another guest is hit, who comes back. Where no descriptor
    is left for that, there is a moment between looking and doing.
    """
    try:
        own = os.dup(descriptor)
    except OSError as problem:
        if problem.errno not in (errno.EMFILE, errno.ENFILE):
            yield None  # closed
            return
        own = descriptor
    try:
        connection = socket.socket(fileno=own)
    except OSError:  # no socket, or closed
        connection = None
    try:
        yield connection if connection is not None and _is_at(connection, port) else None
    finally:
        if connection is not None:
            connection.detach()
        if own != descriptor:
            os.close(own)


def _is_at(connection: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):  # closed at this moment
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            return bool(connection.getsockname()[1] == port)
    return False


def peer_of(descriptor: int, port: int) -> Peer | None:
    """The other end of a connection; None if it has left."""
    with connection_of(descriptor, port) as connection:
        if connection is not None:
            with contextlib.suppress(OSError):  # it has left already
                address, peer_port = connection.getpeername()[:2]
                return address.removeprefix("::ffff:"), peer_port
    return None


def received(descriptor: int, port: int) -> int:
    """Bytes that have come over a connection; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    with connection_of(descriptor, port) as connection:
        if connection is None:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _BYTES_RECEIVED + 8:
        return 0
    return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])


def shut(descriptor: int, port: int) -> None:
    """End a connection; ZeroMQ notices, and closes it."""
    with connection_of(descriptor, port) as connection:
        if connection is not None:
            with contextlib.suppress(OSError):  # the other end has closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)
