"""A client in another language, written from docs/protocol.md, against the real daemon."""

from typing import Any

import pytest

from tests.clients import node_client


@pytest.mark.timeout(node_client.INSTALL_TIMEOUT_S + node_client.RUN_TIMEOUT_S + 60)
def test_node_asks_the_daemon(daemon: Any, pytestconfig: pytest.Config) -> None:
    script = node_client.install(pytestconfig.cache.mkdir("node-client"))
    run = node_client.ask(script, daemon.endpoint, "What is the capital of France?")
    assert run.returncode == 0, run.stderr
    assert "Paris" in run.stdout
