"""Thin clients of the daemon, and the library they share; each speaks only the protocol.

`from clients import Client` is all a program needs. Names are imported when first used, so that
a command which only prints its help does not pay for ZeroMQ.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would cost clients.watch a megabyte
    from typing import Any

    from clients.aio import AsyncAnswer, AsyncClient
    from clients.client import Answer, Client
    from clients.errors import (
        AssistantError,
        BadEndpoint,
        BadRequest,
        Busy,
        ConnectionLost,
        DeadlineExceeded,
        InternalError,
        ModelFailed,
        NoAnswer,
        NotFound,
        NotPaired,
        OverBudget,
        RequestError,
        ShuttingDown,
        TooLarge,
        Unauthorized,
    )

__all__ = [
    "Answer",
    "AssistantError",
    "AsyncAnswer",
    "AsyncClient",
    "BadEndpoint",
    "BadRequest",
    "Busy",
    "Client",
    "ConnectionLost",
    "DeadlineExceeded",
    "InternalError",
    "ModelFailed",
    "NoAnswer",
    "NotFound",
    "NotPaired",
    "OverBudget",
    "RequestError",
    "ShuttingDown",
    "TooLarge",
    "Unauthorized",
]

_MODULES = {
    "Answer": "clients.client",
    "Client": "clients.client",
    "AsyncAnswer": "clients.aio",
    "AsyncClient": "clients.aio",
}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module 'clients' has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "clients.errors"))
    value = getattr(module, name)
    globals()[name] = value
    return value
