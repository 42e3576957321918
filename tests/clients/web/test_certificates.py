"""The authority, what it signs, and when it does so anew; judged by OpenSSL through `ssl`."""

import os
import re
import socket
import ssl
import stat
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from clients.web import certificates
from clients.web.errors import GatewayError
from clients.web.tls import GivenCertificate, OwnAuthority

NAMES = ["localhost", "pi.local", "pi"]
PLACES = [ip_address("192.168.1.5"), ip_address("fd00::5")]
DAY_S = 86_400


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """The server's certificate as a client sees it. Raises ssl.SSLError."""
    ours, theirs = socket.socketpair()
    problems: list[Exception] = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as secured:
                secured.recv(1)
        except OSError as problem:  # the client's to tell
            problems.append(problem)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secured:
            certificate = secured.getpeercert()
            assert certificate is not None
            return dict(certificate)
    finally:
        ours.close()
        thread.join()


def trusting(certificate: bytes) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=certificate.decode())
    return context


def test_a_phone_that_trusts_the_authority_trusts_the_server(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path / "web", lambda: NAMES, lambda: PLACES)
    assert own.renew() and not own.renew()
    assert own.authority is not None
    client = trusting(own.authority)
    for name in (*NAMES, "192.168.1.5", "fd00::5", "127.0.0.1", "::1"):
        shake_hands(own.context, client, name)
    for name in ("evil.example", "192.168.1.6"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(own.context, client, name)


def test_its_fingerprint_is_as_phones_show_it(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path / "web")
    assert own.fingerprint == ""
    own.renew()
    assert own.authority is not None
    known = x509.load_pem_x509_certificate(own.authority).fingerprint(hashes.SHA256())
    assert bytes.fromhex(own.fingerprint.replace(":", "")) == known
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", own.fingerprint)


def test_only_the_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    OwnAuthority(folder, lambda: NAMES, lambda: PLACES).renew()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "server.json",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_authority_cannot_sign_for_the_world(tmp_path: Path) -> None:
    authority = certificates.make_authority(NAMES)
    client = trusting(authority.certificate)
    for names, places, asked in (
        (["bank.example"], [], "bank.example"),
        (["localhost"], [ip_address("8.8.8.8")], "8.8.8.8"),
    ):
        forged = certificates.make_server(authority, names, places)
        for part, content in (("crt", forged.certificate), ("key", forged.key)):
            (tmp_path / part).write_bytes(content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
            shake_hands(context, client, asked)


def test_the_authority_signs_no_authorities() -> None:
    found = x509.load_pem_x509_certificate(certificates.make_authority(NAMES).certificate)
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    assert found.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_a_new_certificate_for_new_addresses_and_in_time(tmp_path: Path) -> None:
    places, now = list(PLACES), [1e9]
    from time import time

    now[0] = time()
    own = OwnAuthority(tmp_path, lambda: NAMES, lambda: places, lambda: now[0])
    own.renew()
    authority = own.authority
    assert authority is not None
    client = trusting(authority)
    places.append(ip_address("10.0.0.7"))
    assert own.renew()
    shake_hands(own.context, client, "10.0.0.7")  # the context goes on with the new one
    now[0] += (certificates.SERVER_DAYS - 32) * DAY_S
    assert not own.renew()
    now[0] += 2 * DAY_S
    assert own.renew()
    assert own.authority == authority  # phones need not be asked again


def test_valid_for_as_long_as_phones_accept(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES)
    own.renew()
    found = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days <= 398


def test_another_name_needs_another_authority(tmp_path: Path) -> None:
    OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES).renew()
    before = (tmp_path / "ca.crt").read_bytes()
    OwnAuthority(tmp_path, lambda: ["localhost", "nas.local", "nas"], lambda: PLACES).renew()
    after = (tmp_path / "ca.crt").read_bytes()
    assert after != before
    own = OwnAuthority(tmp_path, lambda: ["localhost", "nas.local"], lambda: PLACES)
    own.renew()
    assert own.authority == after
    shake_hands(own.context, trusting(after), "nas.local")


@pytest.mark.parametrize("name", ["server.json", "server.key", "server.crt", "ca.crt", "ca.key"])
def test_what_is_missing_is_made(tmp_path: Path, name: str) -> None:
    OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES).renew()
    (tmp_path / name).unlink()
    own = OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES)
    assert own.renew()
    assert own.authority is not None
    shake_hands(own.context, trusting(own.authority), "localhost")


def test_damaged_files_are_told(tmp_path: Path) -> None:
    OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES).renew()
    (tmp_path / "server.key").write_text("no key")
    with pytest.raises(GatewayError, match="remove that folder"):
        OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES).renew()
    (tmp_path / "server.json").write_text("{")
    with pytest.raises(GatewayError, match="remove that folder"):
        OwnAuthority(tmp_path, lambda: NAMES, lambda: PLACES).renew()


def test_a_given_certificate(tmp_path: Path) -> None:
    authority = certificates.make_authority(["home.arpa"])

    def write(name: str) -> None:
        pair = certificates.make_server(authority, [name], [])
        (tmp_path / "crt").write_bytes(pair.certificate)
        (tmp_path / "key").write_bytes(pair.key)

    write("a.home.arpa")
    given = GivenCertificate(tmp_path / "crt", tmp_path / "key")
    assert given.names == ["a.home.arpa"] and given.authority is None
    assert not given.renew()
    shake_hands(given.context, trusting(authority.certificate), "a.home.arpa")
    write("b.home.arpa")
    for path in ("crt", "key"):
        os.utime(tmp_path / path, (1e9, 1e9))
    assert given.renew() and given.names == ["b.home.arpa"]
    (tmp_path / "key").write_text("damaged")
    with pytest.raises(GatewayError, match="PEM"):
        GivenCertificate(tmp_path / "crt", tmp_path / "key")
    with pytest.raises(GatewayError, match="PEM"):
        GivenCertificate(tmp_path / "missing", tmp_path / "key")
