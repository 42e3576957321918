"""Fixtures that every part of the suite shares: the real model, and a home of one's own."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# how long a machine takes says nothing about whether the code is right
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# messages are compared in English, whatever the language of whoever runs the tests
os.environ["LANGUAGE"] = "en"

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The embedded default model: $ASSISTANTD_TEST_MODEL, or pulled once into .model-cache/."""
    given = os.environ.get("ASSISTANTD_TEST_MODEL")
    if given:
        return Path(given)
    from assistantd.models import DEFAULT_MODEL, ModelStore

    store = ModelStore(REPOSITORY / ".model-cache")
    store.pull(DEFAULT_MODEL)  # which does nothing if it is there
    return store.resolve(DEFAULT_MODEL)


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's configuration, data or state."""
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
