"""GET /metrics: the daemon's counters and the gateway's own, for Prometheus.

Off unless asked for (`assistant gateway --metrics`), because it tells when somebody talks to the
assistant, and how much:

    off     there is no such address
    local   whoever asks from this machine, by plain HTTP; from elsewhere with a key
    key     whoever has a key of a program (`assistant devices add-key prometheus`)
"""

import logging
from collections.abc import Callable
from ipaddress import ip_address
from time import time
from typing import Final, Literal, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assistantd.log import fields
from assistantd.protocol import Counters, Status, StatusInfo
from clients.errors import AssistantError
from clients.i18n import _
from clients.web.counts import Counts, resident_bytes
from clients.web.daemon import Daemon
from clients.web.devices import Authenticator, no_key
from clients.web.errors import Refusal
from clients.web.exposition import CONTENT_TYPE, Exposition
from clients.web.limits import Buckets
from clients.web.replies import address_of

log = logging.getLogger(__name__)

Readers = Literal["off", "local", "key"]
PATH: Final = "/metrics"
_TIMEOUT_S: Final = 5.0
"""Prometheus itself waits for ten, and then does not know that it is the daemon that is away."""
_PER_MINUTE: Final = 120
_STATES: Final = ("starting", "loading", "ready", "no_model", "shutting_down")


class Metrics:
    """The endpoint.

    Args:
        readers: who may read it.
        n_open: tells how many connections there are.
    """

    def __init__(
        self,
        readers: Readers,
        daemon: Daemon,
        authenticator: Authenticator,
        counts: Counts,
        n_open: Callable[[], int],
    ) -> None:
        assert readers in get_args(Readers)
        self._readers, self._daemon, self._authenticator = readers, daemon, authenticator
        self._counts, self._n_open = counts, n_open
        self._requests = Buckets(_PER_MINUTE, _PER_MINUTE)

    def routes(self) -> list[Route]:
        """Where it is; nowhere if it is off."""
        return [] if self._readers == "off" else [Route(PATH, self.scrape)]

    async def scrape(self, request: Request) -> Response:
        """GET /metrics. Answers 200 also while the daemon is away: then `assistant_up` is 0."""
        if not (self._readers == "local" and _is_local(request)):
            await self._check_key(request)
        status: StatusInfo | None = None
        try:
            status = (await self._daemon.request(Status(), _TIMEOUT_S)).status
        except AssistantError as problem:
            log.debug("no status for metrics", extra=fields(problem=problem))
        out = Exposition()
        out.single("assistant_up", "gauge", "Whether the daemon answers.", float(bool(status)))
        if status is not None:
            write_status(out, status)
        self._write_own(out)
        return Response(out.text(), headers={"content-type": CONTENT_TYPE})

    async def _check_key(self, request: Request) -> None:
        """Raises Refusal: nobody we know."""
        scheme, _space, token = request.headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer":
            raise no_key()
        try:
            device = await self._authenticator.device(token.strip(), "api", address_of(request))
        except Refusal as refusal:
            raise no_key() if refusal.status == 401 else refusal from None
        request.scope.setdefault("state", {})["device"] = device.id
        wait_s = self._requests.take(device.id)
        if wait_s:
            text = _("too many requests of this device; wait a moment")
            raise Refusal(429, "busy", text, retry_s=wait_s)

    def _write_own(self, out: Exposition) -> None:
        name = "assistant_gateway"
        out.single(f"{name}_connections", "gauge", "Open connections.", self._n_open())
        text = "Open WebSockets: pages that are connected."
        out.single(f"{name}_websockets", "gauge", text, self._counts.n_sockets)
        out.family(
            f"{name}_requests_total",
            "counter",
            "HTTP requests that have ended, by route, method and status.",
            [
                ({"route": route, "method": method, "status": code}, n)
                for (route, method, code), n in sorted(self._counts.requests.items())
            ],
        )
        text = "Memory that the gateway takes."
        out.single(f"{name}_resident_memory_bytes", "gauge", text, resident_bytes())
        up_s = max(0.0, round(time() - self._counts.started_at, 1))
        out.single(f"{name}_uptime_seconds", "gauge", "Since the gateway was started.", up_s)


def _is_local(request: Request) -> bool:
    """Whether it came by the listener for this machine, and not through TLS or a proxy."""
    if request.scope["scheme"] != "http" or "forwarded" in request.headers:
        return False
    if any(name.startswith("x-forwarded-") for name in request.headers):
        return False
    try:
        return ip_address(address_of(request)).is_loopback
    except ValueError:
        return False


def write_status(out: Exposition, status: StatusInfo) -> None:
    """What the daemon tells of itself."""
    version = {"version": status.version}
    out.family("assistant_info", "gauge", "Version of the daemon.", [(version, 1)])
    if status.model is not None:
        model = {"model": status.model.name, "quantization": status.model.quantization or ""}
        out.family("assistant_model_info", "gauge", "The model in memory.", [(model, 1)])
    states = [({"state": state}, float(state == status.state)) for state in _STATES]
    out.family("assistant_state", "gauge", "1 for the state that the daemon is in.", states)
    text = "Since the daemon was started."
    out.single("assistant_uptime_seconds", "gauge", text, status.uptime_s)
    queue = status.queue
    out.single("assistant_requests_active", "gauge", "Answers under way.", queue.active)
    out.single("assistant_requests_waiting", "gauge", "Requests that wait.", queue.waiting)
    out.single("assistant_queue_capacity", "gauge", "Requests that may wait.", queue.capacity)
    text = "Memory of the daemon now; kv_used is of conversations."
    memory = [({"kind": kind}, n) for kind, n in sorted(status.memory.items())]
    out.family("assistant_memory_bytes", "gauge", text, memory)
    text = "What the daemon may take in all; absent without a budget."
    out.single("assistant_memory_budget_bytes", "gauge", text, status.budget)
    if status.plan is not None:
        owners = [({"owner": owner}, n) for owner, n in sorted(status.plan.owners.items())]
        text = "Memory that was set aside, by owner."
        out.family("assistant_memory_planned_bytes", "gauge", text, owners)
    if status.counters is not None:
        _write_counters(out, status.counters)


def _write_counters(out: Exposition, counters: Counters) -> None:
    out.family(
        "assistant_requests_total",
        "counter",
        "Requests that have ended, by type and outcome.",
        [
            ({"type": kind, "outcome": outcome}, n)
            for kind, outcomes in sorted(counters.requests.items())
            for outcome, n in sorted(outcomes.items())
        ],
    )
    for name, text, value in (
        ("requests_refused", "Requests that were told busy.", counters.refused),
        ("bad_frames", "Messages that are no request.", counters.bad_frames),
        (
            "dropped_clients",
            "Clients that went away, or did not read, with requests under way.",
            counters.dropped_clients,
        ),
        ("prompt_tokens", "Tokens of prompts, cached ones included.", counters.prompt_tokens),
        (
            "cached_prompt_tokens",
            "Tokens of prompts that were not computed again.",
            counters.cached_tokens,
        ),
        ("completion_tokens", "Tokens of answers.", counters.completion_tokens),
        (
            "relief_steps",
            "Times that memory was given back because there was too much of it.",
            counters.relief_steps,
        ),
        (
            "streamed_bytes",
            "Weights read from the disk for passes, because they do not fit in memory.",
            counters.streamed_bytes,
        ),
    ):
        out.single(f"assistant_{name}_total", "counter", text, value)
    loads = [
        ({"result": "ok"}, counters.model_loads),
        ({"result": "failed"}, counters.model_load_failures),
    ]
    out.family("assistant_model_loads_total", "counter", "Models that were loaded.", loads)
    for name, text, info in (
        ("queueing", "From receipt until an answer is begun.", counters.queueing_s),
        ("first_token", "From receipt until the first token.", counters.first_token_s),
        ("token", "For each further token of an answer.", counters.token_s),
    ):
        out.histogram(f"assistant_{name}_seconds", text, info.bounds, info.counts, info.sum)
