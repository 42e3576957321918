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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from assistantd import budget, protocol
from assistantd.sizes import parse_size

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
    """ipc:// address to listen on; empty for the user's own socket."""
    data_dir: str = ""
    """Folder of models and sessions; empty for $XDG_DATA_HOME/assistantd."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
    sampling: SamplingConfig = SamplingConfig()
    chat: ChatConfig = ChatConfig()

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


SECTIONS = ("engine", "limits", "sampling", "chat")


@dataclass(frozen=True)
class LoadedConfig:
    """Settings, and where each that is not a default came from."""

    config: Config
    origins: Mapping[str, str]
    """Dotted key → place."""


def default_files() -> list[Path]:
    """The configuration files that are read if they exist, the weaker first."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return [
        Path("/etc/assistantd/config.toml"),
        Path(home).expanduser() / "assistantd" / "config.toml",
    ]


def keys() -> dict[str, Any]:
    """Every dotted key with its default."""
    found: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(Config()).items():
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

    def put(key: str, value: Any, origin: str) -> None:
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
            _build({key: value}, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at `")[0]
            raise ConfigError(f"{origins[key]}: {key} = {value!r}: {what}") from error
    config = _build(values, strict=False)
    if config.endpoint and not config.endpoint.startswith("ipc://"):
        raise ConfigError(
            f"{origins['endpoint']}: endpoint = {config.endpoint!r}: only ipc:// is served; "
            "the network needs keys, which this version does not have yet"
        )
    try:
        budget.resolve(config.memory_budget)
    except ValueError as error:
        raise ConfigError(
            f"{origins['memory_budget']}: memory_budget = {config.memory_budget!r}: "
            'write a size like 400M, or "auto", or "none"'
        ) from error
    socket = config.listen.removeprefix("ipc://")
    if len(socket.encode()) > protocol.MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path has {len(socket.encode())} bytes, the system allows "
            f"{protocol.MAX_SOCKET_PATH_BYTES}: {socket}; set `endpoint` to a shorter one"
        )
    return LoadedConfig(config, origins)


def _build(values: Mapping[str, Any], *, strict: bool) -> Config:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return msgspec.convert(nested, Config, strict=strict)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
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
            hint = f"did you mean {near[0]}?" if near else "see `assistantd --print-config`"
            raise ConfigError(f"{file}: there is no setting {key!r}; {hint}")
    return flat


def to_toml(loaded: LoadedConfig) -> str:
    """The effective settings as TOML, with the origin of each as a comment."""
    lines: list[str] = []
    section = ""
    for key in keys():
        prefix, _, name = key.rpartition(".")
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
