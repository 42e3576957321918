"""Where a daemon is, and the keys with which it is spoken to.

ipc://PATH         this machine; the file's permissions decide who may
tcp://HOST:PORT    elsewhere: CURVE, with the keys that `assistant connect` stored
NAME               the same by the name under which they were stored
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from assistantd.protocol import default_endpoint
from clients.errors import BadEndpoint, NoAnswer, NotPaired
from clients.i18n import _

if TYPE_CHECKING:
    from clients.servers import Server


def refusal(endpoint: str) -> str:
    """What to tell a user who may not use a socket."""
    import grp
    import pwd

    path = endpoint.removeprefix("ipc://")
    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
        user = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, KeyError):
        return _(
            "you may not use the daemon's socket at {endpoint}; ask whoever runs it to add you to "
            "its group"
        ).format(endpoint=endpoint)
    return _(
        "you may not use the daemon's socket at {endpoint}: it is for members of the group "
        "{group}. Have an administrator run `sudo usermod -aG {group} {user}`, then log in again; "
        "or set ASSISTANTD_ENDPOINT to a daemon of your own"
    ).format(endpoint=endpoint, group=group, user=user)


class Address(NamedTuple):
    """An endpoint for ZeroMQ, and for tcp the keys of its daemon."""

    endpoint: str
    server: "Server | None"


def locate(given: str | None) -> Address:
    """The address that is meant; None for the usual one ($ASSISTANTD_ENDPOINT, or this user's).

    Raises:
        BadEndpoint: it is neither an address nor a stored name.
        NotPaired: no keys are stored for it.
        NoAnswer: this user may not use the socket.
        AssistantError: the stored keys cannot be read.
    """
    wanted = given if given is not None else default_endpoint()
    transport, mark, _place = wanted.partition("://")
    if mark and transport != "tcp":
        path = wanted.removeprefix("ipc://")
        # ZeroMQ would try again and again, and never say why
        if transport == "ipc" and os.path.exists(path) and not os.access(path, os.W_OK):
            raise NoAnswer(refusal(wanted))
        return Address(wanted, None)
    from clients import servers  # most clients never need it

    stored = servers.load()
    for server in reversed(stored):  # the last one wins: it was paired again
        if wanted == (server.endpoint if mark else server.name):
            return Address(server.endpoint, server)
    if mark:
        raise NotPaired(
            _(
                "no keys are stored for {endpoint}: this device is not paired with the daemon "
                "there. Run `assistant pair` on that machine, then `assistant connect` on this one"
            ).format(endpoint=wanted)
        )
    if not stored:
        raise BadEndpoint(
            _(
                "cannot use the endpoint {endpoint!r}; write ipc:///path/to/socket, "
                "tcp://HOST:PORT, or the name of a daemon that `assistant connect` has paired with"
            ).format(endpoint=wanted)
        )
    raise BadEndpoint(
        _(
            "cannot use the endpoint {endpoint!r}; write ipc:///path/to/socket, tcp://HOST:PORT, "
            "or one of the names that are stored: {names}"
        ).format(endpoint=wanted, names=", ".join(sorted({server.name for server in stored})))
    )
