"""Forgetting: what somebody wants gone is gone from every place that the daemon keeps it in.

    the database     deleted in one transaction, then written anew, its log emptied (database.py)
    set-aside ones   deleted with everything, told otherwise
    the engine       keys and values in memory and on disk, answers under way (scheduler.py)
    the mailbox      answers that devices could still resume (network/mailbox.py)

A note on the disk says that a forgetting has begun and not ended. After a crash, or if the disk was
full, the rest is done at the next start.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from assistantd.database import ScrubError, set_aside
from assistantd.durable import sync_folder
from assistantd.forgetting import Choice, Found
from assistantd.i18n import _
from assistantd.jobs import ReplyTo
from assistantd.log import fields
from assistantd.protocol import (
    Done,
    Error,
    ErrorCode,
    ErrorInfo,
    Forget,
    ForgottenConversation,
    ForgottenInfo,
    Progress,
    Reply,
)
from assistantd.scheduler import Scheduler
from assistantd.sessions import SessionStore
from assistantd.storage import Storage

log = logging.getLogger(__name__)

NOTE_NAME = "forget.pending"
_REST = Choice(session="")
"""No session is called so: finds nothing, and is for what an earlier forgetting left to do."""


@dataclass(frozen=True)
class _Outcome:
    found: Found
    copies: list[Path]
    problem: Exception | None
    owed: bool
    """Something was left to do by the one before."""


class Forgetter:
    """Forgets conversations. All methods may be called from any thread.

    Args:
        folder: of the database and of the note.
        forget_answers: makes the mailbox forget, too.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        scheduler: Scheduler,
        forget_answers: Callable[[Choice, Found], None],
    ) -> None:
        self._database, self._note = folder / "sessions.db", folder / NOTE_NAME
        self._storage, self._scheduler = storage, scheduler
        self._forget_answers = forget_answers
        # only used on the storage thread
        self._n_under_way = 0
        self._all_well = True

    def finish_earlier(self) -> None:
        """Do what a daemon that was killed had begun."""
        if self._note.exists():
            log.warning("finishing what was being forgotten")
            self.forget(_REST, lambda reply: None)

    def handle(self, request: Forget, reply: ReplyTo) -> None:
        """Answer a request of somebody who may make it."""
        choice = Choice(request.session, request.owner, request.since, request.before)
        if request.preview:
            self._storage.call(self._preview(choice)).add_done_callback(
                lambda done: reply(done.result() if done.exception() is None else _failed(done))
            )
        else:
            self.forget(choice, reply)

    def forget(self, choice: Choice, reply: ReplyTo) -> None:
        """Forget, and reply when it is done everywhere."""

        def deleted(done: "Future[_Outcome | None]") -> None:
            if done.exception() is not None:
                reply(_failed(done))
                return
            outcome = done.result()
            if outcome is None:
                text = _("there is no session {name!r}; see `assistant sessions list`")
                reply(_error("not_found", text.format(name=choice.session)))
                return
            found_none = not outcome.found.parts and not outcome.owed and choice != _REST
            if found_none and not choice.covers(time.time()):
                self._end(choice, outcome, None, reply)  # nothing, and not of what is not kept
                return
            if self._scheduler.state == "loading":
                reply(Progress("load", self._scheduler.message))
            self._scheduler.forget(
                outcome.found, lambda problem: self._end(choice, outcome, problem, reply)
            )

        self._storage.call(lambda store: self._delete(store, choice)).add_done_callback(deleted)

    def close(self, problem: OSError | None) -> None:
        """After the engine has forgotten what was handed in last, and the storage was closed."""
        if problem is None and self._all_well:
            self._note.unlink(missing_ok=True)

    # --- on the storage thread ---------------------------------------------------------------

    def _preview(self, choice: Choice) -> Callable[[SessionStore], Reply]:
        def look(store: SessionStore) -> Reply:
            found = store.find(choice)
            told = _told(found, set_aside(self._database))
            told.conversations = [
                ForgottenConversation(part.session, part.title, len(part.messages), part.whole)
                for part in found.parts
            ]
            return Done(forgotten=told)

        return look

    def _delete(self, store: SessionStore, choice: Choice) -> _Outcome | None:
        """None if a session was named that is not there."""
        named = choice.session is not None and not choice.timed and choice != _REST
        if named and not store.find(choice).parts:
            return None
        self._begin()
        problem: Exception | None = None
        owed = not self._all_well
        try:
            found = store.forget(choice)
            try:
                if found.parts or choice.everything or choice == _REST or owed:
                    store.scrub()
                if choice.everything:
                    for copy in set_aside(self._database):
                        copy.unlink(missing_ok=True)
            except (ScrubError, OSError) as refused:
                problem, self._all_well = refused, False  # `close` may come before `_end`
        except BaseException:
            self._ended(well=False)
            raise
        return _Outcome(found, set_aside(self._database), problem, owed)

    def _begin(self) -> None:
        if not self._note.exists():
            self._note.touch(0o600)
            sync_folder(self._note.parent)
        self._n_under_way += 1

    def _ended(self, *, well: bool) -> None:
        self._n_under_way -= 1
        self._all_well = well  # as every one writes the whole file anew, the last one counts
        if well and not self._n_under_way:
            self._note.unlink(missing_ok=True)

    # --- on the engine's ---------------------------------------------------------------------

    def _end(
        self, choice: Choice, outcome: _Outcome, refused: OSError | None, reply: ReplyTo
    ) -> None:
        self._forget_answers(choice, outcome.found)
        problem = outcome.problem or refused
        try:
            self._storage.call(lambda store: self._ended(well=problem is None))
        except RuntimeError:  # it is closed, and its thread has ended; see `close`
            self._all_well = self._all_well and problem is None
        told = _told(outcome.found, outcome.copies)
        log.info(
            "forgotten",
            extra=fields(sessions=told.sessions, messages=told.messages, shortened=told.shortened),
        )
        if problem is not None:
            log.error("not all is forgotten", extra=fields(problem=problem))
            reply(_error("internal", str(problem)))
            return
        reply(Done(forgotten=told, message=_("deleted")))


def _told(found: Found, copies: list[Path]) -> ForgottenInfo:
    shortened = len(found.parts) - found.sessions
    names = [str(path) for path in copies]
    return ForgottenInfo(found.sessions, found.messages, shortened, copies=names)


def _failed(done: "Future[_Outcome | None] | Future[Reply]") -> Error:
    problem = done.exception()
    if not isinstance(problem, sqlite3.Error | OSError):
        log.error("cannot forget", exc_info=problem)
        return _error("internal", _("the daemon failed on this request; see its log"))
    log.error("cannot forget", extra=fields(problem=problem))
    text = _("nothing was forgotten: {problem}; is the disk full?")
    return _error("internal", text.format(problem=problem))


def _error(code: ErrorCode, message: str) -> Error:
    return Error(ErrorInfo(code, message))
