"""Fetch a file over HTTP so that nothing is lost: resumed, checked, and whole or not there.

What has come so far is in NAME.part, and what the server said of its version in NAME.part.json;
a later try goes on from there if the server still has the same file (RFC 9110, Range, If-Range).
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, Any

from assistantd.durable import write_durable
from assistantd.i18n import _
from assistantd.protocol import ErrorCode

CHUNK_BYTES = 1 << 18
SYNC_EVERY_BYTES = 32 << 20
"""A power cut costs no more of a download than this."""
TIMEOUT_S = 30.0
"""Silence of a server after which a try has failed."""
TRIES = 4
RETRY_WAIT_S = 1.0
PROGRESS_EVERY_S = 0.1
CHECK_ROOM_EVERY, KEEP_FREE = 64 << 20, 256 << 20
"""Bytes of a file whose length the server does not tell, and what it leaves free on the disk."""

ProgressBytes = Callable[[int, int | None], None]


class StoreError(Exception):
    """A model cannot be fetched, found or removed; `code` is the protocol's."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code


class CancelledError(StoreError):
    """The user gave up; what came so far is kept for the next try."""

    def __init__(self) -> None:
        super().__init__("bad_request", _("the download was cancelled; pull again to go on"))


class _DroppedError(Exception):
    """The connection was lost before the end: worth another try."""


class _KeepTokenAtHome(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but show an access token only to the host it is for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        here, there = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if there.scheme not in ("http", "https"):
            return None  # its answer, a redirect, is refused then
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and (here.scheme, here.netloc) != (there.scheme, there.netloc):
            new.remove_header("Authorization")
        return new


def _opener() -> urllib.request.OpenerDirector:
    bundle = next(
        (
            os.environ[name]
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
            if os.environ.get(name)
        ),
        None,
    )
    context = ssl.create_default_context(cafile=bundle)
    return urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), _KeepTokenAtHome()
    )


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise a StoreError unless the disk has room for n_bytes more."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            "model_error",
            _(
                "{folder} has {free:.0f} MB free and {needed:.0f} MB are needed; "
                "make room, or set data_dir to another disk"
            ).format(folder=folder, free=free / 1e6, needed=n_bytes / 1e6),
        )


def fetch(
    url: str,
    part: Path,
    *,
    token: str | None = None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
) -> Mapping[str, str]:
    """Download url to `part`, going on where an earlier try stopped.

    Returns:
        The headers of the answer, names in lower case.

    Raises:
        CancelledError, StoreError: what has come is kept where going on makes sense.
    """
    if url.startswith("file://"):
        return _copy(Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)), part)
    problem: Exception | None = None
    pause = threading.Event()
    for attempt in range(TRIES):
        if attempt:
            pause.wait(RETRY_WAIT_S * attempt)
        try:
            return _try(url, part, token, progress, cancelled)
        except _DroppedError as dropped:
            problem = dropped
    raise StoreError(
        "model_error",
        _("the download broke off {n} times ({problem}); pull again to go on").format(
            n=TRIES, problem=problem
        ),
    )


def _copy(source: Path, part: Path) -> Mapping[str, str]:
    try:
        with source.open("rb") as old, part.open("wb") as new:
            shutil.copyfileobj(old, new, CHUNK_BYTES)
            new.flush()
            os.fsync(new.fileno())
    except OSError as problem:
        raise StoreError(
            "not_found",
            _("cannot read {path}: {problem}").format(path=source, problem=problem.strerror),
        ) from problem
    return {}


def _try(
    url: str,
    part: Path,
    token: str | None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
) -> Mapping[str, str]:
    notes = part.with_name(part.name + ".json")
    note = _read_note(notes)
    have = _sound_bytes(part, note)
    validator = _validator(note, url) if have else None
    request = urllib.request.Request(url, headers={"User-Agent": "assistantd"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        answer = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 416:  # nothing after what we have, or another file by now
                part.unlink(missing_ok=True)
                raise _DroppedError(_("the server has another file by now")) from refused
            raise _refusal(url, refused.code) from refused
    except (http.client.InvalidURL, ValueError) as wrong:
        text = _("{url} is no address of a file: {problem}")
        raise StoreError("bad_request", text.format(url=url, problem=wrong)) from wrong
    except (urllib.error.URLError, OSError, http.client.HTTPException) as lost:
        reason = getattr(lost, "reason", lost)
        if have or isinstance(lost, TimeoutError):
            raise _DroppedError(str(reason)) from lost
        host = urllib.parse.urlsplit(url).netloc
        text = _("cannot reach {host}: {problem}; check the network and pull again")
        raise StoreError("model_error", text.format(host=host, problem=reason)) from lost
    with answer:
        headers: Message = answer.headers
        if answer.status != 206:
            have = 0
        elif not (headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _DroppedError(_("the server has another file by now"))
        length = headers.get("Content-Length") or ""
        total = have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        if total is not None:
            require_space(part.parent, total - have)
        note = {
            "url": url,
            "validator": headers.get("ETag") or headers.get("Last-Modified"),
            "boot": boot_id(),
            "synced": have,
        }
        synced = partial(_write_note, notes, note)
        _receive(answer, part, have, total, progress, cancelled, synced)
        return {name.lower(): value for name, value in headers.items()}


def boot_id() -> str:
    """Names the time since the machine was started; "" where the system has no such name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read_note(notes: Path) -> dict[str, Any]:
    try:
        note = json.loads(notes.read_text())
    except (OSError, ValueError, RecursionError):
        return {}  # no usable note: start over
    return note if isinstance(note, dict) else {}


def _write_note(notes: Path, note: dict[str, Any], synced: int) -> None:
    write_durable(notes, json.dumps({**note, "synced": synced}).encode())


def _sound_bytes(part: Path, note: Mapping[str, Any]) -> int:
    """How much of what has come can be gone on from; the file is cut to it.

    After a power cut there may be a file of the right length that holds nothing. So what was not
    synced counts only while the machine has not been started anew.
    """
    if not part.exists():
        return 0
    have, synced = part.stat().st_size, note.get("synced")
    if note.get("boot") and note.get("boot") == boot_id():
        return have
    sound = min(have, synced) if isinstance(synced, int) and synced >= 0 else 0
    os.truncate(part, sound)
    return sound


def _validator(note: Mapping[str, Any], url: str) -> str | None:
    value = note.get("validator") if note.get("url") == url else None
    # a weak validator does not promise the same bytes
    return value if isinstance(value, str) and not value.startswith("W/") else None


def _receive(
    answer: IO[bytes],
    part: Path,
    have: int,
    total: int | None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
    synced: Callable[[int], None],
) -> None:
    """Write what comes to `part`; `synced` is told how much of it a power cut leaves."""
    shown = 0.0
    try:
        with part.open("ab" if have else "wb") as file:
            synced(last_synced := have)
            while True:
                if cancelled():
                    raise CancelledError
                try:
                    # what there is: waiting for more would keep a cancelled one going
                    chunk = answer.read1(CHUNK_BYTES)  # type: ignore[attr-defined]
                except Exception as lost:  # http.client has no common base for what can go wrong
                    raise _DroppedError(str(lost) or type(lost).__name__) from lost
                if not chunk:
                    break
                file.write(chunk)
                have += len(chunk)
                if have - last_synced >= SYNC_EVERY_BYTES:
                    file.flush()
                    os.fsync(file.fileno())
                    synced(last_synced := have)
                if total is None and have // CHECK_ROOM_EVERY != (have - len(chunk)) // (
                    CHECK_ROOM_EVERY
                ):
                    require_space(part.parent, KEEP_FREE)  # it may never end
                if time.monotonic() - shown >= PROGRESS_EVERY_S:
                    shown = time.monotonic()
                    progress(have, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        text = _("cannot write {path}: {problem}; make room and pull again")
        text = text.format(path=part, problem=problem.strerror)
        raise StoreError("model_error", text) from problem
    if total is not None and have < total:
        raise _DroppedError(_("{n} of {total} bytes came").format(n=have, total=total))
    progress(have, total)


def _refusal(url: str, status: int) -> StoreError:
    host = urllib.parse.urlsplit(url).netloc
    if status in (401, 403):
        return StoreError(
            "unauthorized",
            _(
                "{host} refuses this file ({status}); accept its licence there if it has one, "
                "set HF_TOKEN to your access token for the daemon, and pull again"
            ).format(host=host, status=status),
        )
    if status == 404:
        text = _("{host} has no such file; check the name: {url}").format(host=host, url=url)
        return StoreError("not_found", text)
    if 300 <= status < 400:
        text = _("{host} sends elsewhere, to where models are not fetched from").format(host=host)
        return StoreError("model_error", text)
    text = _("{host} answered {status}; try again later").format(host=host, status=status)
    return StoreError("model_error", text)


def discard(part: Path) -> None:
    """Forget an unfinished download."""
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def sha256_of(path: Path, progress: ProgressBytes, cancelled: Callable[[], bool]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest, done, total, shown = hashlib.sha256(), 0, path.stat().st_size, 0.0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if cancelled():
                raise CancelledError
            digest.update(chunk)
            done += len(chunk)
            if time.monotonic() - shown >= PROGRESS_EVERY_S:
                shown = time.monotonic()
                progress(done, total)
    return digest.hexdigest()


@contextlib.contextmanager
def removed_on_error(path: Path):  # type: ignore[no-untyped-def]
    """Remove a half-written file if the block fails."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
