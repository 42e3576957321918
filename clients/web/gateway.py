"""The gateway as a process: what is started, what goes on beside the server, and the end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from assistantd.log import fields, notify_systemd
from assistantd.protocol import NetworkInfo
from clients.web import addresses, tls
from clients.web.api import Api
from clients.web.app import build
from clients.web.bridge import Sockets
from clients.web.counts import Counts
from clients.web.daemon import Daemon
from clients.web.devices import Authenticator
from clients.web.errors import GatewayError
from clients.web.metrics import Metrics, Readers
from clients.web.openai_api import OpenAi
from clients.web.server import EVERYWHERE, LOOPBACK, Server, allow_descriptors, bind
from clients.web.speech import Speech
from clients.web.static import Page

log = logging.getLogger(__name__)

_HOUSEKEEPING_S: Final = 60.0
_FIRST_S: Final = 3.0
"""So long the first list of addresses waits for the daemon to tell about its network."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        endpoint: the daemon's; None for its usual place.
        host: the interface that TLS listens on; None for all of them.
        port, tls_port: 0 for any that is free.
        lan: speak TLS whether the daemon's network is on or not.
        certificate, key: files of the user's own, both or none.
        metrics: who may read /metrics.
    """

    endpoint: str | None = None
    host: str | None = None
    port: int = 8080
    tls_port: int = 8443
    lan: bool = False
    certificate: Path | None = None
    key: Path | None = None
    metrics: Readers = "off"


@dataclass
class Addresses:
    """Where the gateway can be reached.

    Attributes:
        authority: fingerprint of the certificate that phones are to trust; "" if there is none.
        wanted: whether there should be secure ones, though none may have come up.
    """

    plain: list[str] = field(default_factory=list)
    secure: list[str] = field(default_factory=list)
    authority: str = ""
    wanted: bool = False


class Gateway:
    """Everything, put together.

    Args:
        told: called with the addresses when it is ready, and whenever they change.

    Raises:
        GatewayError: the port is taken, or the certificate cannot be used.
    """

    def __init__(self, options: Options, told: Callable[[Addresses], None]) -> None:
        self._options, self._told = options, told
        self._plain = bind(LOOPBACK, options.port, "--port")
        self._plain_port = int(self._plain[0].getsockname()[1])
        self._certificates: tls.Certificates
        if options.certificate is not None and options.key is not None:
            self._certificates = tls.GivenCertificate(options.certificate, options.key)
        else:
            self._certificates = tls.OwnAuthority(tls.folder())
        self._tls_port: int | None = None
        self._tls_places: tuple[str, ...] = ()
        self._last: Addresses | None = None
        self._tls_wanted = False
        self._asked_network = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises GatewayError."""
        allow_descriptors()
        self._daemon = Daemon(self._options.endpoint)
        self._speech = Speech()
        self._hosts = addresses.Hosts()
        authenticator = Authenticator(self._daemon)
        sockets = Sockets()
        self._api = Api(self._daemon, authenticator, sockets, self._speech)
        openai = OpenAi(self._daemon, authenticator)
        counts = Counts()
        metrics = Metrics(
            self._options.metrics,
            self._daemon,
            authenticator,
            counts,
            lambda: self._server.lobby.n_open,
        )
        app = build(
            self._api,
            openai,
            Page(),
            self._hosts,
            lambda: self._certificates.authority,
            metrics.routes(),
            counts,
        )
        self._server = Server(app, self._plain)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._daemon.on_online = sockets.look
                self._daemon.on_device = lambda device: self._device_changed(authenticator, device)
                self._daemon.on_network = self._network
                beside = [
                    group.create_task(self._daemon.run(), name="daemon"),
                    group.create_task(self._begin(), name="begin"),
                    group.create_task(self._keep_house(), name="housekeeping"),
                ]
                await self._server.run_until_stopped()
                log.info("stopping")
                notify_systemd("STOPPING=1")
                for task in beside:
                    task.cancel()
        except ExceptionGroup as problems:
            known, others = problems.split(GatewayError)
            if known is None or others is not None:
                raise
            raise known.exceptions[0] from None
        finally:
            await self._speech.close()
            await self._daemon.close()
        log.info("stopped")

    def stop(self) -> None:
        """End it as SIGTERM does; once it runs."""
        self._server.stop()

    # --- what goes on beside the server ---

    async def _begin(self) -> None:
        """Tell where to find us, once that is known."""
        if self._options.lan:
            await self._open(self._places())
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_S):
                    await self._asked_network.wait()
        self._tell()
        notify_systemd("READY=1")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            self._speech.release_idle()
            if self._tls_port is not None:
                try:
                    await self._renew()
                except GatewayError as problem:  # perhaps a file is just being replaced
                    log.error("certificate not renewed", extra=fields(problem=problem))
                self._tell()

    def _device_changed(self, authenticator: Authenticator, device_id: str) -> None:
        authenticator.forget(device_id)
        self._group.create_task(self._api.check_sockets(device_id), name="check sockets")

    async def _network(self, info: NetworkInfo | None) -> None:
        """TLS follows the daemon's network."""
        if not self._options.lan:
            self._tls_wanted = wanted = info is not None and info.on
            places = self._places(info)
            if self._tls_port is not None and (not wanted or places != self._tls_places):
                await self._server.close_tls()
                self._tls_port = None
                log.info("TLS ended", extra=fields(network="on" if wanted else "off"))
            if wanted and self._tls_port is None:
                try:
                    await self._open(places)
                except GatewayError as problem:  # the port may be free by the next time
                    log.error("cannot speak TLS", extra=fields(problem=problem))
            if self._last is not None:
                self._tell()
        self._asked_network.set()

    def _places(self, info: NetworkInfo | None = None) -> tuple[str, ...]:
        """Addresses for TLS: as the command line says, else as the daemon's own."""
        if self._options.host:
            return (self._options.host,)
        if info is None or info.endpoint is None:
            return EVERYWHERE
        address = info.endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        return EVERYWHERE if address in ("", "*", *EVERYWHERE) else (address,)

    async def _open(self, places: tuple[str, ...]) -> None:
        await self._renew()
        sockets = bind(places, self._options.tls_port, "--tls-port")
        self._tls_port, self._tls_places = int(sockets[0].getsockname()[1]), places
        await self._server.open_tls(sockets, self._certificates.context)

    async def _renew(self) -> None:
        made = await asyncio.to_thread(self._certificates.renew)
        if made:
            log.info("certificate in use", extra=fields(names=self._certificates.names))
        self._hosts.also(self._certificates.names)

    # --- addresses ---

    def _tell(self) -> None:
        found = self._addresses()
        if found != self._last:
            self._last = found
            log.info("listening", extra=fields(plain=found.plain, secure=found.secure))
            self._told(found)

    def _addresses(self) -> Addresses:
        found = Addresses([f"http://localhost:{self._plain_port}/"], wanted=self._tls_wanted)
        if self._tls_port is not None:
            places = [name for name in self._certificates.names if name != "localhost"]
            if self._tls_places == EVERYWHERE:
                places += [str(one) for one in addresses.addresses() if one.version == 4]
            else:
                places = list(self._tls_places)
            found.authority = self._certificates.fingerprint
            found.secure = [f"https://{_in_url(place)}:{self._tls_port}/" for place in places]
        return found


def _in_url(place: str) -> str:
    return f"[{place}]" if ":" in place else place
