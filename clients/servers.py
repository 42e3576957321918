"""Daemons on other machines that this user has paired with.

They are in $XDG_CONFIG_HOME/assistantd/servers.json. The file holds secret keys, so nobody else may
read it (0600, in a folder of mode 0700). It is replaced as a whole: a crash leaves the old one or
the new one.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from clients.durable import write_file
from clients.errors import AssistantError
from clients.i18n import _


class Server(Struct):
    """One daemon and the keys for it; keys are Z85."""

    name: str
    """What it is called here, as in `assistant --endpoint NAME`."""
    endpoint: str
    """tcp://HOST:PORT"""
    server_key: str
    """The daemon's public key."""
    public_key: str
    secret_key: str
    device: str
    """What this machine is there: an id."""
    words: str
    """Four, to compare: the daemon shows the same."""

    def __repr__(self) -> str:  # the secret key belongs in no log and no traceback
        return f"Server(name={self.name!r}, endpoint={self.endpoint!r}, device={self.device!r})"


def path() -> Path:
    """Where they are kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "assistantd" / "servers.json"


def load() -> list[Server]:
    """All of them; none if there is no file.

    Raises:
        AssistantError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path().read_bytes(), type=list[Server])
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise AssistantError(
            _("cannot read {path}: {problem}").format(path=path(), problem=problem.strerror)
        ) from problem
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        text = _(
            "{path} is damaged: {problem}; mend it, or move it away and pair again "
            "with `assistant connect`"
        )
        raise AssistantError(text.format(path=path(), problem=problem)) from problem


def save(servers: list[Server]) -> None:
    """Replace the file.

    Raises:
        AssistantError: it cannot be written.
    """
    target = path()
    data = msgspec.json.format(msgspec.json.encode(servers)) + b"\n"
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(target, data.decode(), replace=True)
    except OSError as problem:
        raise AssistantError(
            _("cannot write {path}: {problem}").format(path=target, problem=problem.strerror)
        ) from problem


def put(server: Server) -> None:
    """Add one, in place of another of that name. Raises AssistantError as `load` and `save`."""
    save([*(known for known in load() if known.name != server.name), server])
