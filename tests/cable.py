"""A cable between two programs on this machine: TCP connections go through it until it is cut."""

import contextlib
import os
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK = 65536


class Cable:
    """Listens on a port of its own and hands everything on to `port` of this machine.

    Attributes:
        port: to connect to.
        sent, received: bytes from and to whoever connects, over all connections.
        connections: how many there have been.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._near: set[socket.socket] = set()  # ends that were accepted
        self._listener: socket.socket | None = None
        self._wanted, self._closing = True, False
        self._changed = threading.Condition()
        self.sent = self.received = self.connections = 0
        self.port = 0
        self._listen()
        self._thread = threading.Thread(target=self._run, name="cable")
        self._thread.start()

    def cut(self) -> None:
        """Break all connections; new ones are refused until `mend`."""
        self._want(False)

    def mend(self) -> None:
        """Take connections again."""
        self._want(True)

    def _want(self, wanted: bool) -> None:
        with self._changed:
            self._wanted = wanted
            os.write(self._wake_write, b"\0")
            assert self._changed.wait_for(lambda: (self._listener is not None) == wanted, 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self._want(False)
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        while not (self._closing and self._listener is None):
            for key, _events in self._selector.select():
                if key.fd == self._wake_read:
                    os.read(self._wake_read, 64)
                    self._apply()
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._peers:
                    assert isinstance(key.fileobj, socket.socket)
                    self._hand_on(key.fileobj)

    def _apply(self) -> None:
        with self._changed:
            if self._wanted and self._listener is None:
                self._listen()
            elif not self._wanted and self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
                for end in list(self._peers):
                    self._drop(end)
            self._changed.notify_all()

    def _accept(self) -> None:
        assert self._listener is not None
        near, _address = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()  # nobody is there, as whoever connected will notice
            return
        self.connections += 1
        self._near.add(near)
        self._peers[near], self._peers[far] = far, near
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ)

    def _hand_on(self, end: socket.socket) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):  # which is an end as well
            data = end.recv(CHUNK)
        if end in self._near:
            self.sent += len(data)
        else:
            self.received += len(data)
        try:
            self._peers[end].sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        peer = self._peers.pop(end, None)
        if peer is None:
            return
        self._peers.pop(peer)
        for one in (end, peer):
            self._near.discard(one)
            self._selector.unregister(one)
            one.close()
