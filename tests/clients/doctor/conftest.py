"""A place to break."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.doctor.parts import Place, make_place
from tests.engine.tiny_models import Spec, Type, write_model


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Fresh folders, and the environment that names them."""
    yield from make_place(monkeypatch)


@pytest.fixture
def tiny(place: Place) -> Path:
    """A small model in the place's store, as if it had been fetched."""
    return place.use_model(write_model(place.folder / "made.gguf", Spec(type=Type.Q4_0)))
