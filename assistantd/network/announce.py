"""Lets `assistant connect` find the daemon: mDNS, while the network is on.

Announced is what anybody may know who can reach the port: the machine's name and addresses, the
port, the version, and the four words of the daemon's public key.
"""

import contextlib
import importlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assistantd.log import fields
from assistantd.network.hosts import host_name
from assistantd.protocol_pairing import EXTRA, SERVICE

if TYPE_CHECKING:
    from zeroconf import Zeroconf

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
"""How often addresses are looked at: networks come late at boot, and change."""


@dataclass(frozen=True)
class Announcement:
    """What is announced.

    Attributes:
        port: of the encrypted conversations.
        words: the daemon's fingerprint.
        find: the addresses; looked at again and again.
    """

    port: int
    words: str
    version: str
    find: Callable[[], list[str]] = field(compare=False)


class Announcer:
    """Announces from a thread of its own; never fails, but says in the log what it cannot do."""

    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self._look_every_s = look_every_s
        self._wanted: Announcement | None = None
        self._announced: tuple[Announcement, list[str]] | None = None
        self._problem = ""
        self._zeroconf: Zeroconf | None = None
        self._closing = False
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self, wanted: Announcement | None) -> None:
        """Announce this in place of what was, or nothing. Returns at once."""
        self._wanted = wanted
        self._woken.set()
        if self._thread is None and wanted is not None:
            self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take everything back; that takes a part of a second."""
        self._closing = True
        self.announce(None)
        if self._thread is not None:
            self._thread.join()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._woken.clear()
                wanted = self._wanted
                self._look(wanted)
                if self._wanted is not wanted:
                    continue
                self._woken.wait(None if self._wanted is None else self._look_every_s)
        except Exception:
            log.exception("the announcer failed; not announced any more")
        finally:
            self._withdraw()

    def _look(self, wanted: Announcement | None) -> None:
        found = [] if wanted is None else wanted.find()
        now = None if wanted is None else (wanted, found)
        if now == self._announced:
            return
        self._withdraw()
        if wanted is None:
            return
        importlib.invalidate_caches()  # it may have been installed since the daemon started
        try:
            from zeroconf import Error
        except ModuleNotFoundError as missing:
            self._not_yet(f"a package is missing: {missing.name}, of assistantd[{EXTRA}]")
            return
        try:
            self._register(wanted, found)
        # RuntimeError: no interface that can be used
        except (OSError, RuntimeError, Error) as problem:
            self._withdraw()
            self._not_yet(str(problem))
            return
        if self._wanted is not wanted:
            return  # what follows takes it back
        self._announced, self._problem = now, ""
        log.info("announced", extra=fields(addresses=",".join(found), port=wanted.port))

    def _not_yet(self, problem: str) -> None:
        if problem != self._problem:  # once, and not every quarter of a minute
            self._problem = problem
            log.warning("cannot announce on the network yet", extra=fields(problem=problem))

    def _register(self, wanted: Announcement, found: list[str]) -> None:
        import asyncio  # as zeroconf, not before it is needed

        from zeroconf import ServiceInfo, Zeroconf

        if not found:
            raise OSError("this machine has no address on a network")
        name = host_name()
        info = ServiceInfo(
            SERVICE,
            f"{name[:60]}.{SERVICE}",
            parsed_addresses=found,
            port=wanted.port,
            properties={"words": wanted.words, "version": wanted.version},
            # not NAME.local, which belongs to the system's own responder
            server=f"{name[:50]}-assistantd.local.",
        )
        self._zeroconf = zeroconf = Zeroconf()
        assert zeroconf.loop is not None

        async def register() -> None:
            await (await zeroconf.async_register_service(info, allow_name_change=True))

        # not zeroconf's own register_service: that takes a second and a half, whoever waits
        registering = asyncio.run_coroutine_threadsafe(register(), zeroconf.loop)
        registering.add_done_callback(lambda done: self._woken.set())
        while not registering.done():
            self._woken.wait()
            self._woken.clear()
            if self._wanted is not wanted and registering.cancel():
                return
        registering.result()

    def _withdraw(self) -> None:
        self._announced = None
        if self._zeroconf is not None:
            with contextlib.suppress(OSError):  # the network may be gone; then nobody has to know
                self._zeroconf.close()
            self._zeroconf = None
