"""A machine with a real systemd, one for all tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import native
from tests.e2e.systemd.machine import Machine, machine, why_not


@pytest.fixture(scope="module")
def booted(smollm2_path: Path) -> Iterator[Machine]:
    """A machine without the service."""
    obstacle = why_not()
    if obstacle:
        pytest.skip(obstacle)
    with machine(smollm2_path, native.warm()) as running:
        yield running
