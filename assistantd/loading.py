"""Loading a model into the engine, and what there is to say of it afterwards."""

from pathlib import Path
from typing import TYPE_CHECKING

from assistantd.config import Config
from assistantd.protocol import ModelInfo

if TYPE_CHECKING:
    from engine.generate import Engine, ProgressCallback


def load_engine(path: Path, config: Config, progress: "ProgressCallback") -> "Engine":
    """The real engine; numba is imported here and not before."""
    from engine.generate import Engine

    if not config.engine.kv_disk_bytes:
        forget_saved(config)  # of a time when it was kept
    return Engine.load(
        path,
        n_threads=config.engine.threads or None,
        kv_tokens=config.engine.kv_tokens,
        kv_type=config.engine.kv_type,
        kv_dir=config.kv_path,
        kv_disk_bytes=config.engine.kv_disk_bytes,
        prompt_lookup=config.engine.prompt_lookup,
        progress=progress,
    )


def forget_saved(config: Config) -> None:
    """Delete what engines have saved of conversations; no engine may be loaded.

    Raises:
        OSError: the disk refused.
    """
    from engine.kv_disk import discard

    discard(config.kv_path)


def brief(model: ModelInfo | None) -> ModelInfo | None:
    """The model as a reply names it, without the details."""
    return ModelInfo(model.name, model.size_bytes, loaded=True) if model else None


def model_info(name: str, path: Path, engine: "Engine") -> ModelInfo:
    """All there is to know of a loaded model."""
    info = engine.info
    return ModelInfo(
        name=name,
        size_bytes=path.stat().st_size,
        loaded=True,
        path=str(path),
        architecture=info.architecture,
        parameters=info.parameters,
        quantization=info.quantization,
        context_length=engine.context_length,
        n_layers=info.n_layers,
        vocab_size=info.vocab_size,
    )
