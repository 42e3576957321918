"""Opening one of the daemon's SQLite files: private, checked, and brought to the latest schema.

Write-ahead log with synchronous=FULL: a commit survives a power cut. A damaged file is moved aside
and a new one begun, so that the daemon starts; one of a later version is left alone. Damage that
shows later, while the daemon runs, is noted beside the file (`suspect`), and the next start looks
more closely.

Each migration is one transaction, so a power cut in the middle of it leaves the file as it was. No
copy is made before: it would be one more place that holds what somebody wants forgotten.
"""

import contextlib
import glob
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistantd.durable import durable_folder, sync_folder
from assistantd.i18n import _
from assistantd.log import fields

log = logging.getLogger(__name__)

MAX_VERSION = 100
"""Of a schema: no later version has as many, so such a number is damage."""


NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""What opening fails with on a full disk, as other processes are to find an index in a file beside
it. The daemon needs none: it opens the database for itself alone then, can read, and can write as
soon as there is room."""


class NewerSchemaError(Exception):
    """The database was written by a later version, which knows what this one does not."""


class ScrubError(Exception):
    """What was deleted may still be in the file; the message says why, and what to do."""


@dataclass(frozen=True)
class Opened:
    """A database, and where the damaged one that was in its place was moved to, if there was."""

    db: sqlite3.Connection
    set_aside: Path | None


def open_database(path: Path, migrations: Sequence[str], *, any_thread: bool = False) -> Opened:
    """Open a database, or make it.

    Args:
        migrations: one entry per schema version: what brings a database from the one before.
        any_thread: it may be used by other threads than this one, by one at a time.

    Raises:
        OSError, sqlite3.Error: it cannot be opened, though it is not damaged.
        NewerSchemaError: it was written by a later version.
    """
    try:
        return Opened(_open(path, migrations, any_thread), None)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            # locked, disk full, no permission: the data itself may be fine
            if error.sqlite_errorcode & 0xFF not in NO_ROOM:
                raise
            log.warning("no room beside a database", extra=fields(path=path, error=error))
            return Opened(_open(path, migrations, any_thread, alone=True), None)
        set_aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        log.error(
            "a database is damaged; a new one is started",
            extra=fields(path=path, error=error, moved_to=set_aside),
        )
        for suffix in ("", "-wal", "-shm"):
            damaged = path.with_name(path.name + suffix)
            if damaged.exists():
                damaged.rename(set_aside.with_name(set_aside.name + suffix))
        _note_of(path).unlink(missing_ok=True)
        sync_folder(path.parent)
        return Opened(_open(path, migrations, any_thread), set_aside)


def _open(
    path: Path, migrations: Sequence[str], any_thread: bool, *, alone: bool = False
) -> sqlite3.Connection:
    durable_folder(path.parent)
    # made here: SQLite would make it readable for others, and whoever opened it then could go on
    if not path.exists():
        path.touch(0o600)
        sync_folder(path.parent)
    elif not alone:
        _refuse_newer(path, len(migrations))
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=not any_thread)
    # a letter that is damaged costs itself, and not all that is read with it
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        path.chmod(0o600)
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= MAX_VERSION:
            raise sqlite3.DatabaseError(f"it says that its schema is {version}")
        if version > len(migrations):
            raise _newer(path, version, len(migrations))
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        kind = "integrity_check" if _note_of(path).exists() else "quick_check"
        (check,) = db.execute(f"PRAGMA {kind}(1)").fetchone()
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        for number in range(version, len(migrations)):
            stamp = f"PRAGMA user_version = {number + 1}"
            db.executescript(f"BEGIN;{migrations[number]}{stamp};COMMIT;")
        missing = _shape(migrations) - _shape_of(db)
        if missing:
            raise sqlite3.DatabaseError(f"it lacks {', '.join(map('.'.join, sorted(missing)))}")
        _note_of(path).unlink(missing_ok=True)
    except BaseException:
        db.close()
        raise
    return db


def _refuse_newer(path: Path, known: int) -> None:
    """Raise NewerSchemaError if so; reading only, as closing would write the log into the file."""
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    finally:
        db.close()
    if known < version <= MAX_VERSION:
        raise _newer(path, version, known)


def _newer(path: Path, version: int, known: int) -> NewerSchemaError:
    return NewerSchemaError(
        _(
            "{path} was written by a newer assistantd (schema {version}, "
            "this one knows {known}); install that version again"
        ).format(path=path, version=version, known=known)
    )


def scrub(db: sqlite3.Connection) -> None:
    """Leave nothing in the file and its log but the rows that there are.

    Zeros over deleted rows are not enough: when pages were split and merged, copies of rows stayed
    in their gaps, and the log has all that was written lately. It takes room on the disk for the
    rows twice, for a moment.

    Raises:
        ScrubError: the disk is full, or another program reads the file.
    """
    (_number, _name, file) = db.execute("PRAGMA database_list").fetchone()
    folder = str(Path(file).parent).replace("'", "''")
    # the rows go through a temporary file: it is to be here, not in a folder for everybody
    db.execute(f"PRAGMA temp_store_directory = '{folder}'")
    if db.execute("PRAGMA temp_store_directory").fetchone() is None:
        db.execute("PRAGMA temp_store = MEMORY")  # built without that
    try:
        db.execute("VACUUM")
        (busy, _in_log, _moved) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as problem:
        text = _(
            "it is deleted, but its bytes may still be in {path} ({problem}); make room on the "
            "disk, and the daemon's next start, or whatever is forgotten next, removes them"
        )
        raise ScrubError(text.format(path=file, problem=problem)) from problem
    if busy:
        text = _(
            "it is deleted, but another program reads {path}, so its bytes may still be there; end "
            "it, and the daemon's next start, or whatever is forgotten next, removes them"
        )
        raise ScrubError(text.format(path=file))


def set_aside(path: Path) -> list[Path]:
    """Files that were moved aside as damaged from this place, with their logs."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*"))


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of what is done within, or nothing of it.

    Raises:
        sqlite3.Error: it is not stored, and the next transaction may be tried as if nothing was.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # of some errors (disk full, no memory) SQLite has ended it itself
            db.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is damaged, rather than busy, full or forbidden."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return "unsupported file format" in str(error)  # a number in the header, with no code


def suspect(path: Path) -> None:
    """Note that a database has shown damage: the next start looks at all of it."""
    with contextlib.suppress(OSError):  # a disk in that state may take no note either
        _note_of(path).touch(0o600)


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")


def _shape(migrations: Sequence[str]) -> set[tuple[str, str]]:
    """Tables and their columns, as the migrations make them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for migration in migrations:
            db.executescript(migration)
        return _shape_of(db)


def _shape_of(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(
        db.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'"
        )
    )
