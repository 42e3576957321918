"""Options that every command shares, and where a command finds them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the shared options said; click passes it to every command that asks for it."""

    endpoint: str | None = None
    """From --endpoint; None for the default."""
    json: bool = False
    """Print machine-readable output, and errors as well."""


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _set_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).endpoint = value


def _set_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).json = True


endpoint_option = click.option(
    "--endpoint",
    metavar="ADDRESS",
    expose_value=False,
    is_eager=True,
    callback=_set_endpoint,
    help="Where the daemon listens: ipc://PATH, tcp://HOST:PORT, or the NAME it was paired by.",
)
json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_json,
    help="Print one line of JSON, errors included.",
)


def common(command: F) -> F:
    """The options of every command: --json and --endpoint."""
    return endpoint_option(json_option(command))
