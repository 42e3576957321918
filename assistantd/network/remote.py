"""Devices and the network as the daemon sees them: the parts of this package, put together.

All of it is for the serving thread. What waits for the disk is done by a thread of its own, so
that a device is revoked at once, whatever the daemon's other threads are downloading.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from assistantd.forgetting import Choice, Found
from assistantd.jobs import ReplyTo
from assistantd.log import fields
from assistantd.network.access import Access, revoked
from assistantd.network.announce import Announcement, Announcer
from assistantd.network.devices import FILE_NAME, DeviceStore
from assistantd.network.hosts import addresses, host_name, hosts
from assistantd.network.mailbox import Mailbox
from assistantd.network.pairing import Pairing, Place
from assistantd.network.registry import Registry
from assistantd.network.sparing import SparingLog
from assistantd.network.switch import Switch
from assistantd.protocol import (
    Chat,
    Complete,
    DeviceInfo,
    Devices,
    Error,
    Network,
    Pair,
    Reply,
    Request,
    Resume,
)
from assistantd.release import VERSION
from assistantd.server import Peer, Server

log = logging.getLogger(__name__)

AnswerLater = Callable[["Future[Reply]", ReplyTo], None]


class Remote:
    """Who is not the local user.

    Args:
        folder: of keys, devices and settings.
        default_max_tokens: of an answer whose request does not say.
        context_length: of the model that is loaded, in tokens.
        answer_later: replies with what a future becomes.
        on_revoked: called with the id of a device that was revoked, after everybody on its side
            has been told; for what it has under way elsewhere in the daemon.

    Raises:
        OSError, sqlite3.Error, NewerSchemaError: the devices cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        default_max_tokens: int,
        context_length: Callable[[], int | None],
        answer_later: AnswerLater,
        on_revoked: Callable[[str], None],
    ) -> None:
        self._folder, self._on_revoked, self._answer_later = folder, on_revoked, answer_later
        self._sparing = SparingLog(log)
        self.devices = DeviceStore(folder / FILE_NAME)
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="devices")
        # opening and closing sockets waits for whoever is at the other end
        self._porter = ThreadPoolExecutor(1, thread_name_prefix="pairing")
        self._announcer = Announcer()
        self.access = Access(
            self.devices, self._seen, default_max_tokens, context_length, self._sparing
        )

    def serve_at(self, server: Server) -> None:
        """Take part in a server, whose `identify` and `chores` are this one's."""
        self._server = server
        self._mailbox = Mailbox(server.bell.ring)
        self._registry = Registry(self.devices, self._later, self._sparing)
        self.switch = Switch(self._folder, server, self.devices, self._sparing)
        self._pairing = Pairing(
            self.devices,
            lambda: self.switch.key().public,
            self._place,
            lambda: self.switch.hosts() or hosts(),
            lambda work, reply: self._answer_later(self._porter.submit(work), reply),
        )
        self.switch.is_pairing = self._pairing.is_listening
        self.switch.on_change.append(self._network_changed)
        # changes take effect between two messages: none is handled by what held before
        self.devices.on_change.append(lambda device: server.soon(lambda: self._changed(device)))

    def chores(self) -> float | None:
        """What is due now and then; returns the seconds until something is, or None."""
        moments = (self._mailbox.expire(), self._sparing.flush(), self.switch.chores())
        return min((moment for moment in moments if moment is not None), default=None)

    def close(self) -> None:
        """After the server was closed."""
        self.switch.close()
        self._announcer.close()
        self._porter.submit(self._pairing.close).result()
        self._porter.shutdown()
        self._clerk.shutdown()
        self.devices.close()

    # --- requests ----------------------------------------------------------------------------

    def admit(
        self, peer: Peer, request: Request, reply: ReplyTo
    ) -> tuple[DeviceInfo | None, ReplyTo] | None:
        """Whether a request may be handled; if not, it has been answered, and this is None.

        Returns the device whose it is, None for the local user, and where its replies go.
        """
        if peer.device is None:
            return None, reply
        admitted = self.access.admit(peer.device, request)
        if isinstance(admitted, Error):
            reply(admitted)
            return None
        return admitted.device, admitted.show(reply)

    def open_answer(
        self, peer: Peer, device: DeviceInfo, request: Chat | Complete, reply: ReplyTo
    ) -> ReplyTo | None:
        """Where the replies of a device's answer go; None if it is not to be computed."""
        too_large = self.access.weigh(request)
        if too_large is not None:
            reply(too_large)
            return None
        mailbox = self._mailbox.open(peer, device, request, reply)
        if mailbox is not None:
            self.access.lower(device, request)
        return mailbox

    def handle(
        self, peer: Peer, request: Resume | Devices | Network | Pair, reply: ReplyTo
    ) -> None:
        """Answer a request of somebody who may make it; returns at once."""
        match request:
            case Resume():
                self._mailbox.resume(peer, request, reply)
            case Devices():
                self._registry.handle(peer, request, reply)
            case Network():
                self.switch.handle(request, reply)
            case Pair():
                self._pairing.handle(peer, request, reply)

    def forget_answers(self, choice: Choice, found: Found) -> None:
        """Keep no answer for devices that belongs to what is forgotten; from any thread."""
        self._mailbox.forget_sessions(
            {part.session for part in found.parts},
            # an answer that belongs to no session is some minutes old at most
            others=choice.session is None and choice.covers(time.time()),
            device=choice.owner,
        )

    def cancel(self, client: bytes, target: bytes) -> bool:
        """End a request that is handled here; whether there was one."""
        return self._registry.cancel(client, target) or self._pairing.cancel(client, target)

    def gone(self, connection: bytes) -> None:
        """A connection is gone. Answers of devices go on."""
        self._mailbox.detach(connection)
        self._registry.gone(connection)
        self._pairing.gone(connection)

    # --- within ------------------------------------------------------------------------------

    def _changed(self, device: str) -> None:
        now = self.devices.get(device)
        if now is None or now.rights != "admin":
            self._porter.submit(self._pairing.distrust, device).add_done_callback(_note)
        if now is None:
            self._server.end_all(device, revoked())
            self._mailbox.forget(device)
            self.access.forget(device)
            self._on_revoked(device)
        self._registry.changed(device)

    def _place(self) -> Place | None:
        """Where devices pair; from any thread."""
        endpoint, port = self.switch.info().endpoint, self.switch.port
        if endpoint is None or port is None:
            return None
        return Place(self.switch.bind_for_pairing, endpoint, port, host_name())

    def _network_changed(self) -> None:
        """Be announced, and listen for pairing, where the network is now."""
        self._registry.changed("")  # the web gateway is to be where the network is, too
        self._announcer.announce(self._announcement())
        self._porter.submit(self._pairing.network_changed).add_done_callback(_note)

    def _announcement(self) -> Announcement | None:
        port = self.switch.port
        if port is None:
            return None
        words, switch = self.switch.info().fingerprint, self.switch
        return Announcement(port, words, VERSION, lambda: addresses(switch.hosts()))

    def _seen(self, device: str) -> None:
        def note() -> None:
            try:
                self.devices.touch(device)
            except sqlite3.Error as problem:
                log.error("cannot note when a device was here", extra=fields(problem=problem))

        self._clerk.submit(note)

    def _later(self, work: Callable[[], Reply], reply: ReplyTo) -> None:
        self._answer_later(self._clerk.submit(work), reply)


def _note(done: "Future[None]") -> None:
    if (problem := done.exception()) is not None:
        log.error("cannot see to pairing", exc_info=problem)
