"""What the page asks besides its WebSocket: pairing, who am I, hearing, speaking."""

import logging
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from assistantd.log import fields
from assistantd.protocol import DeviceInfo, Devices, Pair, Status
from clients.errors import AssistantError, RequestError
from clients.i18n import _
from clients.web.bridge import Bridge, Sockets
from clients.web.daemon import Daemon
from clients.web.devices import Authenticator, unknown
from clients.web.disconnects import while_connected
from clients.web.errors import Refusal, refusal_of
from clients.web.limits import Buckets, household
from clients.web.replies import address_of, json_reply
from clients.web.security import AUDIO_PATH, read_body
from clients.web.speech import Speech, too_many_wait

log = logging.getLogger(__name__)
T = TypeVar("T")

SECURE_COOKIE: Final = "__Host-assistant"
PLAIN_COOKIE: Final = "assistant"
_YEAR_S: Final = 365 * 86_400
_PAIRINGS_PER_MINUTE: Final = 5
_PAIRINGS_OF_ALL: Final = 20
_REQUESTS_PER_MINUTE: Final = 240
_REQUESTS_AT_ONCE: Final = 60
_MOST_UPLOADS: Final = 16
"""Of sound, at the same time: they are held in memory, and take 4 MB each at most."""


class _PairBody(Struct, forbid_unknown_fields=True):
    code: Annotated[str, Meta(min_length=6, max_length=64)]
    name: Annotated[str, Meta(min_length=1, max_length=64)]


class _SpeakBody(Struct, forbid_unknown_fields=True):
    text: Annotated[str, Meta(max_length=100_000)]
    language: Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$")] | None = (
        None
    )


class Api:
    """The endpoints of the page."""

    def __init__(
        self, daemon: Daemon, authenticator: Authenticator, sockets: Sockets, speech: Speech
    ) -> None:
        self._daemon, self._authenticator = daemon, authenticator
        self._sockets, self._speech = sockets, speech
        self._tries = Buckets(_PAIRINGS_PER_MINUTE, _PAIRINGS_PER_MINUTE)
        self._all_tries = Buckets(_PAIRINGS_OF_ALL, _PAIRINGS_OF_ALL)
        self._requests = Buckets(_REQUESTS_PER_MINUTE, _REQUESTS_AT_ONCE)
        self._n_uploads = 0

    def routes(self) -> list[Route | WebSocketRoute]:
        """Where they are."""
        return [
            Route("/api/me", self.me),
            Route("/api/pair", self.pair, methods=["POST"]),
            Route("/api/unpair", self.unpair, methods=["POST"]),
            Route(AUDIO_PATH, self.hear, methods=["POST"]),
            Route("/api/speak", self.speak, methods=["POST"]),
            WebSocketRoute("/ws", self.socket),
        ]

    # --- endpoints ---

    async def pair(self, request: Request) -> Response:
        """POST /api/pair: a code that `assistant pair` shows becomes a cookie."""
        place = household(address_of(request))
        wait_s = self._tries.take(place) or self._all_tries.take("")
        if wait_s:
            text = _("too many tries; wait a moment, then type the code again")
            raise Refusal(429, "busy", text, retry_s=wait_s)
        body = await _json(request, _PairBody)
        name = " ".join("".join(c if c.isprintable() else " " for c in body.name).split())
        asked = Pair(op="claim", code=body.code, name=name or "?")
        try:
            done = await self._daemon.request(asked)
        except RequestError as error:
            if error.code in ("unauthorized", "not_found", "bad_request"):
                raise Refusal(403, error.code, error.message) from error
            raise refusal_of(error) from error
        except AssistantError as error:
            raise refusal_of(error) from error
        if done.device is None or done.token is None:
            raise Refusal(500, "internal", _("the daemon paired and told no key; try again"))
        # only guesses are counted
        self._tries.give_back(place)
        self._all_tries.give_back("")
        log.info("paired", extra=fields(device=done.device.id, address=address_of(request)))
        reply = json_reply({"device": done.device})
        _set_cookie(request, reply, done.token, _YEAR_S)
        return reply

    async def unpair(self, request: Request) -> Response:
        """POST /api/unpair: this device is forgotten."""
        device, _token = await self._device(request)
        try:
            await self._daemon.request(Devices(op="revoke", id=device.id))
        except AssistantError as error:
            raise refusal_of(error) from error
        self._authenticator.forget(device.id)  # the daemon's news of it may come later
        log.info("unpaired", extra=fields(device=device.id, address=address_of(request)))
        reply = json_reply({"device": device})
        _set_cookie(request, reply, "", 0)
        return reply

    async def me(self, request: Request) -> Response:
        """GET /api/me: who this is, and what there is to talk with."""
        device, _token = await self._device(request)
        try:
            # not as the device: it is the page's questions that count against its limits
            status = (await self._daemon.request(Status())).status
        except AssistantError as error:
            raise refusal_of(error) from error
        abilities = await self._speech.abilities()
        return json_reply(
            {
                "device": device,
                "version": status.version if status is not None else "",
                "model": status.model.name if status is not None and status.model else None,
                "hear": bool(abilities.hear),
                "speak": bool(abilities.speak),
                "languages": sorted(abilities.speak),
            }
        )

    async def hear(self, request: Request) -> Response:
        """POST /api/hear: sound becomes text."""
        await self._device(request)
        _require_type(request, ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"))
        if self._n_uploads >= _MOST_UPLOADS:
            raise too_many_wait()
        self._n_uploads += 1
        try:
            wav = await read_body(request)
            text = await while_connected(request.receive, self._speech.hear(wav))
        finally:
            self._n_uploads -= 1
        return json_reply({"text": text})

    async def speak(self, request: Request) -> Response:
        """POST /api/speak: text becomes sound."""
        await self._device(request)
        body = await _json(request, _SpeakBody)
        wav = await while_connected(request.receive, self._speech.speak(body.text, body.language))
        return Response(wav, media_type="audio/wav")

    async def socket(self, socket: WebSocket) -> None:
        """WS /ws: see bridge.py."""
        device, token = await self._device(socket)
        await Bridge(socket, device, token, self._daemon, self._sockets).run()

    async def check_sockets(self, device_id: str) -> None:
        """Close the pages of a device that was revoked; "" looks at all."""
        for bridge in self._sockets.of(device_id):
            try:
                await self._authenticator.device(bridge.token, "web", None)
            except Refusal as refusal:
                if refusal.status == 401:
                    bridge.revoke()

    # --- who ---

    async def _device(self, connection: HTTPConnection) -> tuple[DeviceInfo, str]:
        """Whose cookie it is, and the cookie. Raises Refusal."""
        token = connection.cookies.get(_cookie_name(connection), "")
        if not token:
            raise unknown()
        device = await self._authenticator.device(token, "web", address_of(connection))
        connection.scope.setdefault("state", {})["device"] = device.id
        wait_s = self._requests.take(device.id)
        if wait_s:
            text = _("too many requests of this device; wait a moment")
            raise Refusal(429, "busy", text, retry_s=wait_s)
        return device, token


def _cookie_name(connection: HTTPConnection) -> str:
    secure = connection.scope["scheme"] in ("https", "wss")
    return SECURE_COOKIE if secure else PLAIN_COOKIE


def _set_cookie(request: Request, reply: Response, token: str, max_age_s: int) -> None:
    reply.set_cookie(
        _cookie_name(request),
        token,
        max_age=max_age_s,
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


async def _json(request: Request, kind: type[T]) -> T:
    """The body as JSON. Raises Refusal."""
    _require_type(request, ("application/json",))
    try:
        return msgspec.json.decode(await read_body(request), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(
            400, "bad_request", _("cannot read the request: {problem}").format(problem=error)
        ) from error


def _require_type(request: Request, kinds: tuple[str, ...]) -> None:
    """A form of another site can send only types that are not taken here. Raises Refusal."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if given not in kinds:
        raise Refusal(
            415, "bad_request", _("the body must be {kind}").format(kind=" / ".join(kinds[:1]))
        )
