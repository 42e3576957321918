"""The application, put together: page, API of the page, OpenAI's API, behind the gate."""

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from clients.i18n import _
from clients.web.addresses import Hosts
from clients.web.api import Api
from clients.web.counts import Counts
from clients.web.disconnects import HungUp
from clients.web.errors import Refusal
from clients.web.openai_api import OpenAi
from clients.web.replies import refuse
from clients.web.security import Gate
from clients.web.static import INDEX, Page

CA_TYPE = "application/x-x509-ca-cert"


def build(
    api: Api,
    openai: OpenAi,
    page: Page,
    hosts: Hosts,
    authority: Callable[[], bytes | None],
    more: Sequence[BaseRoute],
    counts: Counts,
) -> ASGIApp:
    """The whole application.

    Args:
        more: routes beside those of the page and the two interfaces.
        counts: what counts requests.
        authority: the certificate that phones are to trust, PEM; None if there is none of ours.
    """

    async def ca(request: Request) -> Response:
        certificate = authority()
        if certificate is None:
            raise _not_found()
        headers = {"content-disposition": 'attachment; filename="assistantd-ca.crt"'}
        return Response(certificate, headers=headers, media_type=CA_TYPE)

    async def file(request: Request) -> Response:
        path = request.scope["path"]
        reply = page.reply(request, INDEX if path in ("/", "/pair") else path)
        if reply is None:
            raise _not_found()
        return reply

    routes: list[BaseRoute] = [
        *api.routes(),
        *openai.routes(),
        *more,
        Route("/ca.crt", ca),
        *(Route(path, file) for path in ("/", "/pair", *page.paths)),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _refused_by_starlette,
            HungUp: _nobody_waits,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return counts.around(Gate(app, hosts), routes)


async def _refused(connection: HTTPConnection, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return refuse(connection, refusal)


async def _refused_by_starlette(connection: HTTPConnection, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    if problem.status_code == 404:
        return refuse(connection, _not_found())
    if problem.status_code == 405:
        text = _("this address does not take that method")
        reply = refuse(connection, Refusal(405, "bad_request", text))
        reply.headers.update(problem.headers or {})
        return reply
    return refuse(connection, Refusal(problem.status_code, "bad_request", problem.detail))


async def _nobody_waits(connection: HTTPConnection, problem: Exception) -> Response:
    return Response(status_code=499)  # as nginx calls it; nobody will read it


async def _failed(connection: HTTPConnection, problem: Exception) -> Response:
    """The traceback is logged where it is raised again."""
    text = _("the gateway failed; its log has more")
    return refuse(connection, Refusal(500, "internal", text, reason=type(problem).__name__))


def _not_found() -> Refusal:
    return Refusal(404, "not_found", _("there is nothing here"))
