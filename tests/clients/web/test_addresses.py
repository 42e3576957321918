"""clients.web.addresses: which Host headers are ours."""

import pytest

from clients.web.addresses import Hosts, addresses, host_of, names


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8080", "localhost"),
        ("pi.local.", "pi.local"),
        ("[::1]:8443", "::1"),
        ("[FE80::1]", "fe80::1"),
        ("192.168.1.5:1", "192.168.1.5"),
        ("", None),
        ("a b", None),
        ("a:b", None),
        ("a:1:2", None),
        ("::1", None),
        ("[::1", None),
        ("http://a", None),
        ("a/b", None),
        ("a@b", None),
        ("x" * 300, None),
        ("a:123456", None),
    ],
)
def test_host_of(header: str, host: str | None) -> None:
    assert host_of(header) == host


def test_names_and_addresses() -> None:
    hosts = Hosts(["pi", "pi.local"])
    assert hosts.is_ours("pi:8080", "127.0.0.1") and hosts.is_ours("PI.local", "")
    assert not hosts.is_ours("pi.evil.example", "") and not hosts.is_ours("localhost", "")
    # an address counts where it is this end of the connection
    assert hosts.is_ours("192.168.1.5:8443", "192.168.1.5")
    assert hosts.is_ours("192.168.1.5", "::ffff:192.168.1.5")
    assert not hosts.is_ours("192.168.1.6", "192.168.1.5")
    assert hosts.is_ours("[fd00::5]", "fd00::5%eth0")
    assert hosts.is_ours("127.0.0.1", "127.0.0.1")
    # numbers that some resolvers take for addresses are none
    for odd in ("2130706433", "0x7f.1", "127.1", "0177.0.0.1"):
        assert not hosts.is_ours(odd, "127.0.0.1"), odd


def test_names_of_a_certificate() -> None:
    hosts = Hosts(["pi"])
    hosts.also(["home.example", "*.Home.Example"])
    assert hosts.is_ours("home.example", "") and hosts.is_ours("x.home.example:1", "")
    assert not hosts.is_ours("x.y.home.example", "") and not hosts.is_ours("example", "")
    hosts.also([])
    assert not hosts.is_ours("home.example", "") and hosts.is_ours("pi", "")


def test_this_machine() -> None:
    assert "localhost" in names() and all(name == name.casefold() for name in names())
    assert not any(address.is_global or address.is_loopback for address in addresses())
