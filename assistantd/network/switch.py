"""The `network` request: listening on the network, or no longer; kept over restarts.

data/network/network.json     {"on": true, "address": "*", "port": 5771}
"""

import errno
import ipaddress
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta

from assistantd.i18n import _
from assistantd.log import fields
from assistantd.network.devices import DeviceStore
from assistantd.network.door import NetworkDoor, bind_tcp, tcp_endpoint
from assistantd.network.files import private_folder, write_private
from assistantd.network.hosts import hosts
from assistantd.network.keys import FILE_NAME as KEY_FILE_NAME
from assistantd.network.keys import KeyFileError, ServerKey
from assistantd.network.optional import words_if_installed
from assistantd.network.sparing import SparingLog
from assistantd.protocol import (
    Done,
    Error,
    ErrorInfo,
    Network,
    NetworkInfo,
    Reply,
)
from assistantd.server import Server

log = logging.getLogger(__name__)

FILE_NAME = "network.json"
ANY_ADDRESS = "*"
PORT = 5771
LAST_PORT = 65534
"""The one after it is for pairing."""
RETRY_S = 10.0
"""A daemon that shall listen, and could not when it started, tries again so often."""

ReplyTo = Callable[[Reply], None]


class Setting(msgspec.Struct, frozen=True):
    """What is kept over restarts."""

    on: bool = False
    address: str = ANY_ADDRESS
    port: Annotated[int, Meta(ge=1, le=LAST_PORT)] = PORT


class SwitchError(Exception):
    """The network cannot be switched as asked; the message says what to do."""


class Switch:
    """Opens and shuts the network's door. For the serving thread, but for what says otherwise.

    Attributes:
        on_change: called after the network was switched, and must return at once. For whoever
            announces the daemon, or listens beside it.
        is_pairing: whether pairing is listened for, on the port after the door's.
    """

    def __init__(
        self, folder: Path, server: Server, store: DeviceStore, sparing: SparingLog
    ) -> None:
        self._folder, self._server, self._store, self._log = folder, server, store, sparing
        self._door: NetworkDoor | None = None
        self._setting = Setting()
        self._key: ServerKey | None = None
        self._problem = ""
        self._try_again_at: float | None = None
        self._closing: list[threading.Thread] = []
        self.on_change: list[Callable[[], None]] = []
        self.is_pairing: Callable[[], bool] = lambda: False

    # --- what holds; from any thread ---------------------------------------------------------

    def key(self) -> ServerKey:
        """The daemon's key; made if there is none yet.

        Raises:
            KeyFileError: it cannot be read or made.
        """
        if self._key is None:
            self._key = ServerKey.load_or_make(self._folder)
        return self._key

    @property
    def port(self) -> int | None:
        """Where the door listens; None while the network is off."""
        return self._setting.port if self._door is not None else None

    @property
    def problem(self) -> str:
        """Why nothing is listened for, though it should be; else empty."""
        return self._problem

    def bind_for_pairing(self, socket: "zmq.Socket[bytes]") -> None:
        """Bind a socket to the port after the door's, at the same address.

        Raises:
            zmq.ZMQError: that is not possible.
        """
        bind_tcp(socket, self._setting.address, self._setting.port + 1)

    def info(self) -> NetworkInfo:
        """How the daemon can be reached."""
        info = NetworkInfo(on=self._door is not None)
        if self._key is not None:
            info.public_key = self._key.public
            info.fingerprint = words_if_installed("fingerprint", self._key.public)
        if self._door is not None:
            address, port = self._setting.address, self._setting.port
            info.endpoint = tcp_endpoint(address, port)
            if self.is_pairing():
                info.pairing = tcp_endpoint(address, port + 1)
            info.hosts = self.hosts()
        return info

    def hosts(self) -> list[str]:
        """This machine's names and addresses, as far as it listens there; none if it does not."""
        return _hosts_at(self._setting.address) if self._door is not None else []

    # --- switching ---------------------------------------------------------------------------

    def start(self) -> None:
        """Be as the file says. What prevents it does not keep the daemon from starting."""
        path = self._folder / FILE_NAME
        try:
            if (self._folder / KEY_FILE_NAME).exists():
                self.key()
            self._setting = msgspec.json.decode(path.read_bytes(), type=Setting)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            self._problem = _(
                "the network stays off: {path} cannot be read ({problem}); "
                "switch it on again with `assistant network on`"
            ).format(path=path, problem=problem)
            log.error("cannot read the network's setting", extra=fields(problem=problem))
            return
        except KeyFileError as problem:
            self._stay_off(problem)
            return
        if self._setting.on:
            self._try()

    def chores(self) -> float | None:
        """Try again to listen, if it is time. Returns the seconds until the next try, or None."""
        if self._try_again_at is None:
            return None
        if self._try_again_at <= time.monotonic():
            self._try()
        return None if self._try_again_at is None else self._try_again_at - time.monotonic()

    def handle(self, request: Network, reply: ReplyTo) -> None:
        """Answer a request of somebody who may make it.

        Writing the setting takes some milliseconds; who switches the network has them.
        """
        before, old = self.port, self._door
        try:
            if request.op == "on":
                self._turn_on(request)
            elif request.op == "off":
                self._turn_off()
        except (SwitchError, KeyFileError) as problem:
            log.warning("cannot switch the network", extra=fields(problem=problem))
            reply(Error(ErrorInfo("bad_request", str(problem))))
        else:
            reply(Done(network=self.info(), message=self._problem or None))
        if old is not None and self._door is not old:
            # after the reply, which may have to leave by it
            self._server.soon(lambda: self._shut(old))
        if self.port != before:
            self._changed()

    def close(self) -> None:
        """Wait for a door that is being closed. The one that is open is the server's to close."""
        for thread in self._closing:
            thread.join()

    def _turn_on(self, request: Network) -> None:
        before = self._setting
        address = request.address or ANY_ADDRESS
        wanted = Setting(True, address, request.port or PORT)
        if wanted.port > LAST_PORT:
            text = _("choose a port up to {n}; the one after it is for pairing")
            raise SwitchError(text.format(n=LAST_PORT))
        if self._door is not None and wanted == before:
            return
        old, key = self._door, self.key()
        if old is not None and before.port == wanted.port:
            self._shut(old)  # both cannot listen at the same port
            self._door = None
        try:
            self._open(wanted, key)
        except SwitchError:
            if old is not None and self._door is None:
                self._open(before, key)
            raise
        self._save(wanted)

    def _turn_off(self) -> None:
        self._try_again_at, self._problem = None, ""
        if self._door is not None:
            self._door = None
            log.info("network off")
        self._save(msgspec.structs.replace(self._setting, on=False))

    def _try(self) -> None:
        try:
            self._open(self._setting, self.key())
        except (SwitchError, KeyFileError) as problem:
            self._stay_off(problem)
            self._try_again_at = time.monotonic() + RETRY_S
        else:
            self._changed()

    def _stay_off(self, problem: Exception) -> None:
        self._problem = _("the network stays off: {problem}").format(problem=problem)
        self._log.warning("cannot listen on the network", problem=problem)

    def _changed(self) -> None:
        for callback in self.on_change:
            callback()

    def _open(self, setting: Setting, key: ServerKey) -> None:
        for thread in self._closing:
            thread.join()  # or the port would still be taken
        self._closing.clear()
        try:
            door = NetworkDoor(setting.address, setting.port, key, self._store, self._log)
        except zmq.ZMQError as problem:
            raise SwitchError(_why(setting, problem)) from problem
        self._server.open(door)
        self._door, self._setting = door, setting
        self._try_again_at, self._problem = None, ""
        log.info("network on", extra=fields(endpoint=door.endpoint))

    def _shut(self, door: NetworkDoor) -> None:
        if not self._server.shut(door):
            return
        # what was sent has a moment to leave, and nobody waits for it here
        thread = threading.Thread(target=door.close, name="door")
        thread.start()
        self._closing.append(thread)

    def _save(self, setting: Setting) -> None:
        self._setting = setting
        path = self._folder / FILE_NAME
        try:
            write_private(private_folder(self._folder) / FILE_NAME, msgspec.json.encode(setting))
        except OSError as problem:
            raise SwitchError(
                _(
                    "it holds until the daemon restarts, because {path} cannot be written: "
                    "{problem}; make room or give permission, then do it again"
                ).format(path=path, problem=problem.strerror)
            ) from problem


def _hosts_at(address: str) -> list[str]:
    """This machine's names and addresses, as far as the door is there."""
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:  # all of them, or an interface's name
        return hosts()
    return hosts() if parsed.is_unspecified else [str(parsed)]


def _why(setting: Setting, problem: zmq.ZMQError) -> str:
    """What to do about an address that cannot be bound."""
    if problem.errno == errno.EADDRINUSE:
        return _(
            "port {port} is in use by another program; "
            "choose another with `assistant network on --port`"
        ).format(port=setting.port)
    if problem.errno == errno.EACCES:
        return _(
            "this user may not listen at port {port}; choose one above 1023 with "
            "`assistant network on --port`"
        ).format(port=setting.port)
    return _(
        "this machine has no address {address} ({problem}); leave it out to listen at all of them"
    ).format(address=setting.address, problem=problem)
