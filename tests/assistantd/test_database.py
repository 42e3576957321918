"""Files of the daemon's databases."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from assistantd.database import open_database, transaction

MIGRATIONS = ("CREATE TABLE words (word TEXT) STRICT;",)


def test_nobody_else_may_open_it_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, connect, modes = tmp_path / "some.db", sqlite3.connect, []

    def look(*given: Any, **named: Any) -> sqlite3.Connection:
        db = connect(*given, **named)
        modes.append(path.stat().st_mode & 0o777)
        return db

    monkeypatch.setattr(sqlite3, "connect", look)
    before = os.umask(0)
    try:
        opened = open_database(path, MIGRATIONS)
        with transaction(opened.db):
            opened.db.execute("INSERT INTO words VALUES ('secret')")
        modes += [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()]
        opened.db.close()
    finally:
        os.umask(before)
    assert len(modes) > 2 and set(modes) == {0o600}
