"""The gateway's own view of the daemon: is it there, who was revoked, and what may be asked of it.

Two connections: one for control, which must never wait behind answers, and one for the answers of
OpenAI's API. Pages have their own (dealer.py) in the context that is kept here.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final

import zmq

from assistantd.log import fields
from assistantd.protocol import Devices, Done, Network, NetworkInfo, Progress, Request
from clients.aio import AsyncClient
from clients.errors import AssistantError, ConnectionLost, NoAnswer, RequestError
from clients.i18n import _

log = logging.getLogger(__name__)

CONTROL_TIMEOUT_S: Final = 10.0
"""A daemon that is alive answers anything but a question long before."""
_RETRY_S: Final = 1.0
_NETWORK_S: Final = 30.0
"""How often the daemon is asked whether its network is on, besides with every change that it tells
of: a port that was taken may be free by then."""

OnDevice = Callable[[str], None]
OnNetwork = Callable[[NetworkInfo | None], Coroutine[Any, Any, None]]


class Daemon:
    """The connections to the daemon; `run` keeps watch until it is cancelled.

    Attributes:
        online: whether it was there when last heard of.
        answers: for chat and complete of programs.
        context: for the sockets of pages.
        on_online: called when `online` has changed.
        on_device: called with the id of a device that has changed, or "" for any of them.
        on_network: awaited with what the network is like, whenever it was asked.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._control = AsyncClient(endpoint)
        # an answer is kept for its device by its id, also when a gateway that asked before is gone
        self.answers = AsyncClient(endpoint, request_prefix=f"{secrets.token_hex(8)}-")
        self.endpoint = self._control.endpoint
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 8192)
        self.online = False
        self.on_online: Callable[[], None] = lambda: None
        self.on_device: OnDevice = lambda device: None
        self.on_network: OnNetwork | None = None
        self._network_due = asyncio.Event()

    async def request(self, request: Request, timeout_s: float = CONTROL_TIMEOUT_S) -> Done:
        """Ask something that takes a moment.

        Raises:
            RequestError: the daemon says no.
            ConnectionLost, NoAnswer: it is away.
        """
        if not self.online:  # or it would be done later, when nobody waits for it any more
            raise unreachable()
        return await self._control.request(request, timeout=timeout_s)

    async def run(self) -> None:
        """Keep watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_devices())
            group.create_task(self._watch_network())

    async def close(self) -> None:
        """Disconnect."""
        await self.answers.close()
        await self._control.close()
        await asyncio.to_thread(self.context.destroy, 0)

    async def _watch_devices(self) -> None:
        while True:
            pause_s = 0.0
            problem: AssistantError | None = None
            try:
                await self._control.request(Devices(op="watch"), self._on_progress)
                pause_s = _RETRY_S  # the daemon ended it, and may do so again
            except (ConnectionLost, NoAnswer) as error:
                problem = error  # the next request waits until it is there
            except RequestError as error:
                problem, pause_s = error, _RETRY_S
            self._set_online(False, problem)
            await asyncio.sleep(pause_s)

    def _on_progress(self, progress: Progress) -> None:
        if progress.stage != "devices":
            return
        came = not self.online
        self._set_online(True)
        # what changed while nobody watched is not told: everything may have
        self.on_device("" if came else progress.message)
        self._network_due.set()

    def _set_online(self, online: bool, problem: AssistantError | None = None) -> None:
        if online == self.online:
            return
        self.online = online
        if online:
            log.info("daemon is there", extra=fields(endpoint=self.endpoint))
        else:
            log.warning("daemon is away", extra=fields(endpoint=self.endpoint, problem=problem))
        self.on_online()

    async def _watch_network(self) -> None:
        while True:
            self._network_due.clear()  # before asking: what changes meanwhile is asked again
            await self._ask_network()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NETWORK_S):
                    await self._network_due.wait()

    async def _ask_network(self) -> None:
        if self.on_network is None:
            return
        try:
            info = (await self.request(Network(op="status"))).network
        except AssistantError as error:
            log.debug("cannot ask about the network", extra=fields(problem=error))
            return  # what held, holds
        await self.on_network(info)


def unreachable() -> ConnectionLost:
    """For requests of a page while the daemon is away."""
    text = _("the assistant is not running; it may be starting again: wait a moment")
    return ConnectionLost(text)
