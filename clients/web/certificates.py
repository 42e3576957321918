"""A certificate authority of this machine's own, and what it signs: the X.509 of tls.py.

The authority is restricted by name constraints: whoever got hold of its key could pretend to be
things in this house, and nothing else. Its key never leaves the folder, which only the owner reads.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clients.web.addresses import Address

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""Browsers and phones distrust certificates that are valid for longer."""
_CLOCKS_DIFFER: Final = datetime.timedelta(days=1)

_HOUSE_NAMES: Final = ("localhost", "local", "lan", "home", "home.arpa", "internal")
"""Names that mean nothing outside of a house; with everything below them."""
_HOUSE_NETWORKS: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def in_house(address: Address) -> bool:
    """Whether the authority may sign for an address."""
    return any(address in network for network in _HOUSE_NETWORKS)


def make_authority(names: Sequence[str]) -> Pair:
    """A new certificate authority for a machine of these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = next((name for name in names if name != "localhost"), "localhost")
    subject = _name(f"assistantd on {own}")
    permitted = dict.fromkeys([*_HOUSE_NAMES, *names])
    constraints: list[x509.GeneralName] = [x509.DNSName(name) for name in permitted]
    constraints += [x509.IPAddress(network) for network in _HOUSE_NETWORKS]
    certificate = (
        _builder(subject, subject, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
        .add_extension(x509.NameConstraints(constraints, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _usage(*, of_authority: bool) -> x509.KeyUsage:
    """What a key is for: signing certificates, or speaking TLS."""
    return x509.KeyUsage(
        digital_signature=not of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        encipher_only=False,
        decipher_only=False,
    )


def make_server(authority: Pair, names: Sequence[str], addresses: Sequence[Address]) -> Pair:
    """A certificate for the server, signed by the authority, with a new key.

    The names and addresses must be such as the authority may sign for.
    """
    ca = x509.load_pem_x509_certificate(authority.certificate)
    ca_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(address) for address in addresses]
    certificate = (
        _builder(_name("assistantd"), ca.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def read_names(certificate: bytes) -> tuple[list[str], float]:
    """DNS names that a certificate (PEM) is for, and when it ends (Unix time).

    Raises:
        ValueError: it is no certificate.
    """
    found = x509.load_pem_x509_certificate(certificate)
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    return names, found.not_valid_after_utc.timestamp()


def permits(authority: bytes, names: Sequence[str]) -> bool:
    """Whether an authority (PEM) may sign for all these names."""
    found = x509.load_pem_x509_certificate(authority)
    constraints = found.extensions.get_extension_for_class(x509.NameConstraints).value
    permitted = [
        one.value for one in constraints.permitted_subtrees or [] if isinstance(one, x509.DNSName)
    ]
    return all(any(name == one or name.endswith(f".{one}") for one in permitted) for name in names)


def loopback() -> list[Address]:
    """Addresses that every server certificate has."""
    return [ip_address("127.0.0.1"), ip_address("::1")]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now - _CLOCKS_DIFFER + datetime.timedelta(days=days))
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
