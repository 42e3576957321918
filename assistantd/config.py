"""The daemon's settings: defaults, files, environment, flags, in that order; all checked at once.

    /etc/assistantd/config.toml              for every user of the machine
    $XDG_CONFIG_HOME/assistantd/config.toml  yours (~/.config by default)
    ASSISTANTD_MODEL, ASSISTANTD_ENGINE_THREADS, …   key, or section and key, in capitals
    assistantd --model …                     flags

A later one wins, key by key. `--config FILE` takes the place of both files.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from assistantd import budget, protocol
from assistantd.i18n import _
from assistantd.sizes import parse_size

MAX_FILE_BYTES = 1 << 20
MAX_SHOWN = 200
"""Characters of a wrong value in a message."""
Positive = Annotated[int, Meta(ge=1, le=1_000_000)]


class ConfigError(Exception):
    """A setting that cannot be used; the message names where it was set and what is allowed."""


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[engine]"""

    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    """Worker threads; 0 for one per physical core."""
    kv_tokens: Annotated[int, Meta(ge=256, le=10_000_000)] = 8192
    """Tokens of conversation kept in memory, over all clients."""
    kv_type: Literal["f16", "q8"] = "f16"
    """How they are kept: half precision, or bytes, which take half the memory."""
    kv_disk: int | str = "1G"
    """Room on disk for conversations that memory has none for, and for all of them while the
    daemon is stopped: a size, as 400M or 1.5G; 0 keeps nothing."""
    prompt_lookup: bool = True
    """Guess tokens from the text so far: answers that quote come faster, and are the same."""

    def __post_init__(self) -> None:
        parse_size(self.kv_disk)  # its ValueError becomes a ValidationError

    @property
    def kv_disk_bytes(self) -> int:
        """kv_disk in bytes."""
        return parse_size(self.kv_disk)


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[limits]"""

    max_active: Annotated[int, Meta(ge=1, le=32)] = 4
    """Answers computed at the same time."""
    max_queue: Positive = 32
    """Requests that may wait; further ones are told `busy`."""
    shutdown_grace_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """Seconds that answers get to finish when the daemon is told to stop."""
    reload_grace_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """Seconds that answers get to finish when `assistant reload` needs their model's memory."""


class SamplingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[sampling]: what a request gets when it does not say"""

    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.2
    """Low: what the default model's authors advise, and small models wander otherwise."""
    top_k: Annotated[int, Meta(ge=0)] = 40
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.1
    max_tokens: Positive = 1024


class ChatConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[chat]"""

    system: str = "You are a helpful assistant."
    """System prompt where a request or session has none; empty leaves it to the template."""


class PrivacyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[privacy]"""

    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Messages that are so old are removed, at start and daily; 0 keeps them until you forget
    them."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    model: Annotated[str, Meta(min_length=1)] = "smollm2"
    """A name that `assistant models list` shows, or the path of a GGUF file."""
    memory_budget: str = "auto"
    """What the whole daemon may use: a size like "400M"; "auto" for nine tenths of the cgroup's
    limit or of the available memory; "none" for as much as it takes."""
    idle_unload_s: Annotated[float, Meta(ge=0, le=1e9)] = 300.0
    """Seconds without a request after which the weights' memory is given back; 0 for never."""
    endpoint: str = ""
    """ipc:// address of the local socket; empty for the user's own."""
    data_dir: str = ""
    """Folder of models and sessions; empty for $XDG_DATA_HOME/assistantd."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_text: bool = False
    """Log questions and answers, too; without it no text of users is ever logged."""
    crash_reports: Annotated[int, Meta(ge=0, le=1000)] = 10
    """Reports of crashes that are kept in data_dir/crashes; 0 for none."""
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
    sampling: SamplingConfig = SamplingConfig()
    chat: ChatConfig = ChatConfig()
    privacy: PrivacyConfig = PrivacyConfig()

    @property
    def listen(self) -> str:
        """The endpoint to bind."""
        if self.endpoint:
            return self.endpoint
        runtime = os.environ.get("RUNTIME_DIRECTORY")  # set by systemd
        folder = Path(runtime.split(":")[0]) if runtime else protocol.runtime_dir()
        return f"ipc://{folder / protocol.SOCKET_NAME}"

    @property
    def data_path(self) -> Path:
        """The folder of models and sessions."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        state = os.environ.get("STATE_DIRECTORY")  # set by systemd
        if state:
            return Path(state.split(":")[0])
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(home).expanduser() / "assistantd"

    @property
    def kv_path(self) -> Path:
        """The folder of what [engine] kv_disk keeps."""
        return self.data_path / "kv"


SECTIONS = ("engine", "limits", "sampling", "chat", "privacy")


@dataclass(frozen=True)
class LoadedConfig:
    """Settings, and where each that is not a default came from."""

    config: Config
    origins: Mapping[str, str]
    """Dotted key → place."""
    shadowed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Dotted key that was set at several places → these, that which holds last."""


def default_files() -> list[Path]:
    """The configuration files that are read if they exist, the weaker first."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return [
        Path("/etc/assistantd/config.toml"),
        Path(home).expanduser() / "assistantd" / "config.toml",
    ]


def keys() -> dict[str, Any]:
    """Every dotted key with its default."""
    return flat(Config())


def flat(config: Config) -> dict[str, Any]:
    """Dotted key → value."""
    found: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(config).items():
        if name in SECTIONS:
            for key, default in msgspec.structs.asdict(value).items():
                found[f"{name}.{key}"] = default
        else:
            found[name] = value
    return found


def load(
    config_file: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Read and check everything.

    Args:
        config_file: replaces the default files, and must exist.
        flags: dotted key → value, of the command line; None means not given.

    Raises:
        ConfigError: with the place, the key, what was found and what is allowed.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    shadowed: dict[str, list[str]] = {}

    def put(key: str, value: Any, origin: str) -> None:
        if key in origins:
            shadowed.setdefault(key, [origins[key]]).append(origin)
        values[key], origins[key] = value, origin

    for file in [config_file] if config_file else default_files():
        if config_file or file.exists():
            for key, value in _read_file(file).items():
                put(key, value, str(file))
    for key in keys():
        variable = "ASSISTANTD_" + key.replace(".", "_").upper()
        if environ.get(variable):
            put(key, environ[variable], f"${variable}")
    for key, value in flags.items():
        if value is not None:
            put(key, value, f"--{key.rpartition('.')[2].replace('_', '-')}")

    # one key at a time, so that an error can name its origin
    for key, value in values.items():
        try:
            if isinstance(value, str):
                value.encode()
            build({key: value}, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            what = _short(str(error).partition(" - at `")[0])
            raise ConfigError(f"{origins[key]}: {key} = {_short(repr(value))}: {what}") from error
        except UnicodeEncodeError as error:  # of the environment, or a flag
            text = _("{origin}: {key} is not UTF-8").format(origin=origins[key], key=key)
            raise ConfigError(text) from error
        except (OverflowError, RecursionError) as error:
            text = f"{origins[key]}: {key} = {_short(repr(value))}: {error}"
            raise ConfigError(text) from error
    config = build(values, strict=False)
    if config.endpoint and not config.endpoint.startswith("ipc://"):
        raise ConfigError(
            _(
                "{origin}: endpoint = {value!r}: this is the local socket, ipc://PATH; "
                "to be reached from elsewhere, run `assistant network on`"
            ).format(origin=origins["endpoint"], value=_short(config.endpoint))
        )
    try:
        budget.resolve(config.memory_budget)
    except ValueError as error:
        raise ConfigError(
            _(
                '{origin}: memory_budget = {value!r}: write a size like 400M, or "auto", or "none"'
            ).format(origin=origins["memory_budget"], value=_short(config.memory_budget))
        ) from error
    socket = config.listen.removeprefix("ipc://")
    if len(socket.encode()) > protocol.MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            _(
                "the socket's path has {n} bytes, the system allows {limit}: {path}; "
                "set `endpoint` to a shorter one"
            ).format(n=len(socket.encode()), limit=protocol.MAX_SOCKET_PATH_BYTES, path=socket)
        )
    return LoadedConfig(config, origins, shadowed)


def build(values: Mapping[str, Any], *, strict: bool = True) -> Config:
    """Settings from dotted keys; what is left out has its default.

    Raises:
        msgspec.ValidationError: a value is not allowed.
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _dot, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return msgspec.convert(nested, Config, strict=strict)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            text = _("{path} is larger than {n} bytes: not a configuration")
            raise ConfigError(text.format(path=file, n=MAX_FILE_BYTES))
        table = tomllib.loads(raw.decode("utf-8").replace("\r\n", "\n"))
    except OSError as error:
        raise ConfigError(
            _("cannot read {path}: {problem}").format(path=file, problem=error.strerror)
        ) from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise ConfigError(
            _("{path} is not valid TOML: {problem}").format(path=file, problem=_short(str(error)))
        ) from error
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name in SECTIONS and isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    known = keys()
    for key in flat:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            if near:
                text = _("{path}: there is no setting {key!r}; did you mean {near}?")
            else:
                text = _("{path}: there is no setting {key!r}; see `assistantd --print-config`")
            shown = _short(key)
            raise ConfigError(text.format(path=file, key=shown, near=near[0] if near else ""))
    return flat


def _short(text: str) -> str:
    """At most a line of what was found."""
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def to_toml(loaded: LoadedConfig) -> str:
    """The effective settings as TOML, with the origin of each as a comment."""
    lines: list[str] = []
    section = ""
    for key in keys():
        prefix, _dot, name = key.rpartition(".")
        if prefix != section:
            section = prefix
            lines += ["", f"[{section}]"]
        holder = getattr(loaded.config, prefix) if prefix else loaded.config
        value = msgspec.json.encode(getattr(holder, name)).decode()  # TOML agrees on scalars
        lines.append(f"{name} = {value}  # {loaded.origins.get(key, 'default')}")
    effective = (
        f"# listens on {loaded.config.listen}",
        f"# keeps data in {loaded.config.data_path}",
    )
    return "\n".join([*effective, *lines]) + "\n"
