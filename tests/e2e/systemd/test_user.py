"""A user's own service under a real systemd: with lingering, from boot on and without a session."""

import json
from pathlib import Path

import pytest

from tests.e2e.systemd.machine import OPT, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

UNIT = "assistantd.service"
PROGRAMS = ("--programs", f"{OPT}/bin")


def test_the_whole_life_of_a_users_service(booted: Machine) -> None:
    booted.run("useradd", "--create-home", "ann")
    # without a session or lingering there is no manager that could run it
    done = booted.do("assistant", "service", "install", *PROGRAMS, user="ann")
    assert done.returncode == 1
    assert "loginctl enable-linger ann" in done.stderr

    booted.run("systemctl", "start", "dbus.service", "systemd-logind.service")
    booted.run("loginctl", "enable-linger", "ann")
    number = booted.run("id", "-u", "ann").strip()
    booted.run("systemctl", "start", f"user@{number}.service")
    # compiled for her already, or it would take minutes
    cache = Path("/home/ann/.cache/assistantd")
    booted.run("install", "-d", "-o", "ann", "-g", "ann", str(cache.parent), str(cache))
    booted.run("cp", "-r", "/var/cache/assistantd/kernels", str(cache))
    booted.run("chown", "-R", "ann:", str(cache))

    options = (*PROGRAMS, "--memory-budget", "300M")
    done = booted.do("assistant", "service", "install", *options, user="ann")
    assert done.returncode == 0, done.stderr + booted.run("journalctl", "--no-pager")
    assert "linger" not in done.stderr.rpartition("ready")[2]
    config = booted.path("/home/ann/.config/assistantd/config.toml").read_text()
    assert config == 'memory_budget = "300M"\n'

    status = json.loads(booted.run("assistant", "service", "status", "--json", user="ann"))
    daemon = status["units"][UNIT]
    assert status["scope"] == "user" and status["lingers"] is True
    assert daemon["active"] == "active" and daemon["enabled"]
    assert "of 300M" in daemon["says"]
    assert status["socket"] == f"/run/user/{number}/assistantd.sock"

    # the sandbox that a user's manager can make
    values = dict(
        line.split(":\t", 1)
        for line in booted.run("cat", f"/proc/{daemon['pid']}/status").splitlines()
    )
    assert values["NoNewPrivs"] == "1" and values["Seccomp"] == "2"
    assert set(values["Uid"].split()) == {number}
    show = ("systemctl", "--user", "show", UNIT, "--value", "--property")
    assert booted.run(*show, "MemoryDenyWriteExecute", user="ann").strip() == "yes"

    assert booted.run("assistant", "Say yes.", user="ann").strip()
    # the socket starts it again
    booted.run("systemctl", "--user", "stop", UNIT, user="ann")
    assert booted.run("assistant", "Say yes.", user="ann").strip()

    # nobody else gets in
    booted.run("useradd", "--create-home", "bob")
    socket = f"ipc:///run/user/{number}/assistantd.sock"
    refused = booted.do("assistant", "--endpoint", socket, "Say yes.", user="bob")
    assert refused.returncode == 3

    done = booted.do("assistant", "service", "uninstall", user="ann")
    assert done.returncode == 0, done.stderr
    left = booted.run("find", "/home/ann/.config", "-name", "*assistant*").split()
    assert left == ["/home/ann/.config/assistantd"]  # with config.toml, which is hers
    assert "kept /home/ann/.local/share/assistantd" in done.stdout
    assert booted.do("test", "-e", status["socket"]).returncode == 1


def test_another_daemon_is_not_pushed_aside(booted: Machine) -> None:
    """One that a question has started, and that is no service."""
    booted.do("useradd", "--create-home", "ann")  # she may be there
    booted.run("systemctl", "start", "dbus.service", "systemd-logind.service")
    booted.run("loginctl", "enable-linger", "ann")
    number = booted.run("id", "-u", "ann").strip()
    booted.run("systemctl", "start", f"user@{number}.service")
    booted.run("assistant", "start", user="ann")
    done = booted.do("assistant", "service", "install", *PROGRAMS, user="ann")
    assert done.returncode == 1
    assert "assistant stop" in done.stderr
    assert booted.do("assistant", "ping", user="ann").returncode == 0
    booted.run("assistant", "stop", user="ann")
    assert "wrote" in booted.run("assistant", "service", "install", *PROGRAMS, user="ann")
