"""TLS for phones: certificates in a folder, made when needed and renewed in time; or one's own.

$XDG_DATA_HOME/assistantd/web/   0700
    ca.crt  ca.key               the authority, made once; phones are told to trust ca.crt
    server.crt  server.key       made anew when names or addresses change, or time runs out
    server.json                  what server.crt is for, so that looking needs no cryptography
"""

import logging
import os
import ssl
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final

import msgspec

from assistantd.log import fields
from clients.durable import sync_folder
from clients.i18n import _
from clients.web import addresses
from clients.web.errors import GatewayError

if TYPE_CHECKING:
    from clients.web import certificates

log = logging.getLogger(__name__)

_RENEW_BEFORE_S: Final = 30 * 86_400
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def folder() -> Path:
    """Where the authority is kept."""
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "assistantd" / "web"


class _Signed(msgspec.Struct):
    """What server.crt was made for."""

    names: list[str]
    addresses: list[str]
    expires_at: float


class OwnAuthority:
    """Certificates by an authority of this machine's own.

    Args:
        folder: see above; made if it is not there.
        find_names, find_addresses, clock: replaced in tests.

    Attributes:
        context: what connections are made with; it goes on with new certificates.
        names: that the certificate is for.
    """

    def __init__(
        self,
        folder: Path,
        find_names: Callable[[], Sequence[str]] = addresses.names,
        find_addresses: Callable[[], Sequence[addresses.Address]] = addresses.addresses,
        clock: Callable[[], float] = time,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._find_names, self._find_addresses = find_names, find_addresses
        self.context = new_context()
        self.names: list[str] = []
        self._loaded = False

    @property
    def authority(self) -> bytes | None:
        """What phones are to trust, PEM; None before it was made."""
        path = self._folder / "ca.crt"
        return path.read_bytes() if path.is_file() else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate as phones show it; "" before it was made."""
        authority = self.authority
        if authority is None:
            return ""
        return sha256(ssl.PEM_cert_to_DER_cert(authority.decode())).digest().hex(":").upper()

    def renew(self) -> bool:
        """Make what is missing, wrong or too old, and use it. Whether anything was made.

        Raises:
            GatewayError: the folder cannot be used.
        """
        try:
            return self._renew()
        except (OSError, ValueError) as problem:
            raise GatewayError(
                _(
                    "cannot use the certificates in {folder}: {problem}; remove that folder to "
                    "have new ones made (phones must then trust the new ca.crt)"
                ).format(folder=self._folder, problem=problem)
            ) from problem

    def _renew(self) -> bool:
        names = list(self._find_names())
        places = list(self._find_addresses())
        wanted = [str(one) for one in places]
        signed = self._signed()
        made = False
        if (
            signed is None
            or signed.names != names
            or signed.addresses != wanted
            or signed.expires_at - self._clock() < _RENEW_BEFORE_S
        ):
            self._sign(names, places, wanted)
            made = True
        if made or not self._loaded:
            self.context.load_cert_chain(self._folder / "server.crt", self._folder / "server.key")
            self._loaded = True
        self.names = names
        return made

    def _signed(self) -> _Signed | None:
        """What the certificate there is for; None if there is none, or half of it."""
        files = ("ca.crt", "ca.key", "server.crt", "server.key", "server.json")
        if not all((self._folder / name).is_file() for name in files):
            return None
        return msgspec.json.decode((self._folder / "server.json").read_bytes(), type=_Signed)

    def _sign(
        self, names: list[str], places: Sequence[addresses.Address], wanted: list[str]
    ) -> None:
        from clients.web import certificates

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        # gone first: a server.json that is there says that all the others fit together
        (self._folder / "server.json").unlink(missing_ok=True)
        authority = self._authority(names)
        usable = [one for one in places if certificates.in_house(one)]
        server = certificates.make_server(authority, names, [*certificates.loopback(), *usable])
        _names, expires_at = certificates.read_names(server.certificate)
        self._write("server.key", server.key)
        self._write("server.crt", server.certificate + authority.certificate)
        signed = _Signed(names, wanted, expires_at)
        self._write("server.json", msgspec.json.encode(signed))
        log.info("certificate made", extra=fields(names=names, addresses=wanted))

    def _authority(self, names: list[str]) -> "certificates.Pair":
        from clients.web import certificates

        certificate, key = self._folder / "ca.crt", self._folder / "ca.key"
        if certificate.is_file() and key.is_file():
            pair = certificates.Pair(certificate.read_bytes(), key.read_bytes())
            if certificates.permits(pair.certificate, names) and self._is_young(pair):
                return pair
            log.warning("authority too old or for other names: phones must trust the new one")
        certificate.unlink(missing_ok=True)
        pair = certificates.make_authority(names)
        self._write("ca.key", pair.key)
        self._write("ca.crt", pair.certificate)
        log.info("authority made", extra=fields(folder=self._folder))
        return pair

    def _is_young(self, authority: "certificates.Pair") -> bool:
        from clients.web import certificates

        _names, expires_at = certificates.read_names(authority.certificate)
        return expires_at - self._clock() > certificates.SERVER_DAYS * 86_400

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all, for the owner only."""
        part = self._folder / f".{name}.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._folder / name)
        sync_folder(self._folder)


class GivenCertificate:
    """A certificate that somebody else takes care of, as of Let's Encrypt.

    Args:
        certificate: the file, with the chain; key: the file of its private key.

    Attributes:
        context, names: as of OwnAuthority.

    Raises:
        GatewayError: they cannot be used.
    """

    authority: bytes | None = None
    fingerprint = ""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = new_context()
        self.names: list[str] = []
        self._changed_at = (0.0, 0.0)
        self.renew()

    def renew(self) -> bool:
        """Use the files again if they have changed. Whether they had. Raises GatewayError."""
        try:
            changed_at = (self._certificate.stat().st_mtime, self._key.stat().st_mtime)
            if changed_at == self._changed_at:
                return False
            from clients.web import certificates

            names, _expires_at = certificates.read_names(self._certificate.read_bytes())
            # tried first: a pair that does not fit must not spoil what connections are made with
            for context in (new_context(), self.context):
                context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as problem:
            raise GatewayError(
                _(
                    "cannot use the certificate {certificate} with the key {key}: {problem}; "
                    "both must be PEM files, the key without a password"
                ).format(certificate=self._certificate, key=self._key, problem=problem)
            ) from problem
        self.names, self._changed_at = names, changed_at
        return True


Certificates = OwnAuthority | GivenCertificate


def new_context() -> ssl.SSLContext:
    """TLS 1.2 or later, with ciphers that keep what was said secret even if the key gets known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    return context
