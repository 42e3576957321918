"""The daemon's own key pair for CURVE: made once, and then what devices know the daemon by.

data/network/            mode 0700
    server.key           mode 0600: the secret key in Z85; the public one follows from it
"""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from assistantd.i18n import _
from assistantd.log import fields
from assistantd.network.files import private_folder, write_private

log = logging.getLogger(__name__)

FILE_NAME = "server.key"
Z85_CHARS = 40
_making = threading.Lock()
"""Held while the file is looked for and made: the first to ask may be several threads."""


class KeyFileError(Exception):
    """The daemon's key cannot be read or made; the message says what to do."""


@dataclass(frozen=True)
class ServerKey:
    """The daemon's keys, each in Z85."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def load_or_make(cls, folder: Path) -> "ServerKey":
        """Read the key from its file; the first time, make one.

        Raises:
            KeyFileError: the file is damaged, or cannot be read or written.
        """
        path = folder / FILE_NAME
        try:
            private_folder(folder)
            with _making:
                if not path.exists():
                    _make(path)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
                log.warning("the key was readable for others", extra=fields(path=path))
            secret = path.read_bytes().strip()
        except OSError as problem:
            raise KeyFileError(
                _("cannot keep the network's key in {path}: {problem}").format(
                    path=path, problem=problem.strerror
                )
            ) from problem
        try:
            if len(secret) != Z85_CHARS:
                raise ValueError(len(secret))
            public = zmq.curve_public(secret)
        except (ValueError, KeyError, zmq.ZMQError) as problem:
            raise KeyFileError(
                _(
                    "the network's key in {path} is damaged; put it back from a copy, or delete "
                    "it: then a new one is made, and every device has to be paired again"
                ).format(path=path)
            ) from problem
        return cls(public.decode(), secret.decode())


def _make(path: Path) -> None:
    _public, secret = zmq.curve_keypair()
    write_private(path, secret + b"\n")
    log.info("made a key for the network", extra=fields(path=path))
