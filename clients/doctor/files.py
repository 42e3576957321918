"""Checks of the model's file and of the databases: are they whole?"""

import hashlib
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from clients.cli.output import human_bytes
from clients.doctor.context import Context
from clients.doctor.daemon import lock_holders
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_CHUNK_BYTES: Final = 1 << 20
_FREE_BYTES: Final = 16 << 20
_FREE_SHARE: Final = 0.5
_MOST_SHOWN: Final = 5


def check_model(context: Context) -> Iterator[Finding]:
    """Is the model there, and whole?"""
    model = context.examination.model
    if model is None:
        yield skipped("model", context.examination.problems["model"])
        return
    details = {"path": model.path, "size_bytes": model.size_bytes}
    why = _("the daemon has nothing to answer with")
    for name in model.parts:
        yield warning(
            "model.part",
            _("the download of {name} broke off").format(name=name),
            _("it takes room, and the model is not there"),
            f"assistant models pull {name}",
            name=name,
        )
    if not model.is_there or model.path is None:
        mend = "assistant models pull smollm2; assistant models list"
        yield problem("model.missing", model.problem or model.name, why, mend, **details)
        return
    again = f"assistant models remove {model.name} && assistant models pull {model.name}"
    if "/" in model.name:
        again = _("fetch {path} again").format(path=model.path)
    if model.recorded_bytes is not None and model.recorded_bytes != model.size_bytes:
        text = _("{path} has {size:,} bytes, and had {recorded:,} when it was fetched")
        text = text.format(path=model.path, size=model.size_bytes, recorded=model.recorded_bytes)
        yield problem("model.size", text, _("it was cut off, or changed"), again, **details)
        return
    if model.problem is not None:
        yield problem("model.damaged", model.problem, why, again, **details)
        return
    if not context.thorough or model.recorded_sha256 is None:
        yield ok("model", f"{model.name}, {human_bytes(model.size_bytes)}", **details)
        return
    context.say(_("reading all of {path} …").format(path=model.path))
    digest = hashlib.sha256()
    with Path(model.path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != model.recorded_sha256:
        yield problem(
            "model.hash",
            _("{path} is not what was fetched: its SHA-256 has changed").format(path=model.path),
            _("answers may be nonsense, and the disk may be failing"),
            again,
            **details,
        )
        return
    text = _("{name}, {size}, read whole: as it was fetched")
    yield ok("model", text.format(name=model.name, size=human_bytes(model.size_bytes)), **details)


def check_database(context: Context) -> Iterator[Finding]:
    """Can the databases be read, and by this version?"""
    for name, newest in context.examination.schemas.items():
        path = context.data / name
        if not path.exists():
            continue
        yield from _check_one(context, path, newest)
    if not (context.data / "sessions.db").exists():
        yield skipped("database", _("there are no conversations yet"))


def _check_one(context: Context, path: Path, newest: int) -> Iterator[Finding]:
    try:
        if path.stat().st_size > 100 << 20:
            context.say(_("reading all of {path} …").format(path=path))
        # other than a socket, the lock is the daemon's also while it does not answer
        in_use = context.listens is True or bool(lock_holders(context))
        with _reading(path, in_use=in_use) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            complaints = [row[0] for row in db.execute("PRAGMA quick_check(5)")]
            (page,) = db.execute("PRAGMA page_size").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            text = _("{path} cannot be read: {problem}").format(path=path, problem=error)
            why = _("the daemon cannot start")
            yield problem("database.unreadable", text, why, "assistant doctor permissions")
            return
        complaints = [str(error)]
    except sqlite3.DatabaseError as error:
        complaints = [str(error)]
    except OSError as error:
        text = _("{path} cannot be read: {problem}").format(path=path, problem=error.strerror)
        why = _("the daemon cannot start")
        yield problem("database.unreadable", text, why, "assistant doctor permissions")
        return
    if complaints != ["ok"]:
        yield problem(
            "database.damaged",
            _("{path} is damaged: {problem}").format(path=path, problem=complaints[0]),
            _("the next start sets it aside and begins an empty one"),
            f"assistant stop; sqlite3 '{path}' .recover | sqlite3 '{path}.recovered'",
            path=str(path),
            complaints=complaints,
        )
        return
    details = {"path": str(path), "schema": version, "bytes": pages * page, "free": free * page}
    if version > newest:
        yield problem(
            "database.newer",
            _(
                "{path} was written by a newer assistantd (schema {version}, known is {known})"
            ).format(path=path, version=version, known=newest),
            _("the daemon does not start"),
            "pip install --upgrade assistantd",
            **details,
        )
    elif free * page > _FREE_BYTES and free > _FREE_SHARE * pages:
        yield warning(
            "database.free",
            _("{free} of {path} are unused").format(free=human_bytes(free * page), path=path),
            _("they take room on the disk"),
            f"assistant stop; sqlite3 '{path}' VACUUM",
            **details,
        )
    else:
        yield ok("database", f"{path}: {human_bytes(pages * page)}", **details)


@contextmanager
def _reading(path: Path, *, in_use: bool) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, not even the files of the write-ahead log.

    Args:
        in_use: a daemon has it open.
    """
    log = path.with_name(f"{path.name}-wal")
    with tempfile.TemporaryDirectory(prefix="assistant-doctor-") as folder:
        if not log.exists():
            mode = "mode=ro&immutable=1"  # else SQLite would make both files, and leave them
        elif in_use:
            mode = "mode=ro"  # the log's index is kept up by the daemon
        else:  # after a crash: reading would write the index, so a copy is read
            copy = Path(folder) / path.name
            shutil.copyfile(log, copy.with_name(log.name))
            path = Path(shutil.copyfile(path, copy))
            mode = "mode=rw"
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as db:
            yield db


def check_set_aside(context: Context) -> Iterator[Finding]:
    """Do damaged databases lie about that were set aside?"""
    found = sorted(
        path
        for folder in (context.data, context.data / "network")
        for path in folder.glob("*.damaged-*")
        if not re.search(r"-(wal|shm)$", path.name)
    )
    if not found:
        yield ok("set-aside", _("none"))
    for path in found[-_MOST_SHOWN:]:
        yield warning(
            "set-aside.database",
            _("a damaged database was set aside: {path}").format(path=path),
            _("what it held is not shown any more; it may be rescued in part"),
            f"sqlite3 '{path}' .recover | sqlite3 rescued.db; rm '{path}'*",
            path=str(path),
        )
