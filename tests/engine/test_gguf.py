"""The GGUF reader on good, damaged and hostile files."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import read_config
from engine.errors import EngineError, ModelFormatError, UnsupportedModelError
from engine.gguf import open_gguf
from engine.info import describe
from engine.plan import Settings, plan_for
from tests.engine.tiny_models import Spec, Type, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gguf") / "m.gguf", Spec(type=Type.Q4_K))


def test_agrees_with_the_gguf_package(model: Path) -> None:
    reader = GGUFReader(model)
    with open_gguf(model) as file:
        assert file.version == 3
        assert set(file.tensors) == {tensor.name for tensor in reader.tensors}
        for theirs in reader.tensors:
            ours = file.tensors[theirs.name]
            assert ours.shape == tuple(int(d) for d in theirs.shape[::-1])
            assert ours.type == theirs.tensor_type
            assert bytes(file.tensor_bytes(theirs.name)) == theirs.data.tobytes()
        for name, field in reader.fields.items():
            if not name.startswith("GGUF."):
                expected = field.contents()
                ours_value = file.metadata[name]
                assert (list(ours_value) if isinstance(expected, list) else ours_value) == expected


def test_real_model(smollm2_path: Path) -> None:
    info = describe(smollm2_path)
    assert info.parameters == 134_515_008  # the model card says 135M
    assert (info.quantization, info.context_length, info.n_layers) == ("Q4_1", 8192, 30)
    plan = plan_for(smollm2_path, 0, Settings(2, 8192), None)
    assert plan.owners["kv_cache"] == 8192 * 30 * 2 * 192 * 2


def header(n_tensors: int = 0, n_metadata: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_metadata)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(name: bytes, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    packed = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return string(name) + packed


BAD_FILES = {
    "empty": (b"", "has 0 bytes"),
    "not-gguf": (b"PK\x03\x04" + bytes(40), "not a GGUF"),
    "version-1": (header(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor-count": (header(n_tensors=2**60), "number of tensors"),
    "metadata-count": (header(n_metadata=2**60), "number of metadata"),
    "missing-metadata": (header(n_metadata=1), "needs 8 bytes"),
    "long-key": (header(n_metadata=1) + struct.pack("<Q", 2**63), "length of a metadata key"),
    "key-not-utf8": (header(n_metadata=1) + string(b"\xff\xfe"), "not UTF-8"),
    "value-type": (header(n_metadata=1) + string(b"k") + struct.pack("<I", 99), "value type 99"),
    "huge-array": (
        header(n_metadata=1) + string(b"k") + struct.pack("<IIQ", 9, 0, 2**50),
        "items of k",
    ),
    "lying-string-array": (
        header(n_metadata=1) + string(b"k") + struct.pack("<IIQ", 9, 8, 1_000_000),
        "too short",
    ),
    "nested-array": (
        header(n_metadata=1) + string(b"k") + struct.pack("<IIQ", 9, 9, 1),
        "array of arrays",
    ),
    "duplicate-key": (
        header(n_metadata=2) + 2 * (string(b"k") + struct.pack("<IB", 0, 1)),
        "twice",
    ),
    "alignment": (
        header(n_metadata=1) + string(b"general.alignment") + struct.pack("<II", 4, 3),
        "alignment",
    ),
    "dimensions": (header(1) + string(b"t") + struct.pack("<I", 9), "9 dimensions"),
    "zero-dimension": (header(1) + tensor(b"t", [0]), "cannot be in this file"),
    "overflowing-shape": (header(1) + tensor(b"t", [2**32, 2**32]), "cannot be in this file"),
    "tensor-type": (header(1) + tensor(b"t", [4], kind=77) + bytes(64), "type 77"),
    "ragged-blocks": (header(1) + tensor(b"t", [33], kind=2) + bytes(64), "multiple of 32"),
    "misaligned": (header(1) + tensor(b"t", [4], offset=7) + bytes(96), "not aligned"),
    "truncated": (header(1) + tensor(b"t", [16]) + bytes(16), "cut off"),
    "offset-past-end": (header(1) + tensor(b"t", [4], offset=2**62) + bytes(64), "cut off"),
    "overlap": (
        header(2) + tensor(b"a", [16]) + tensor(b"b", [16], offset=32) + bytes(200),
        "overlaps",
    ),
    "duplicate-tensor": (header(2) + 2 * tensor(b"a", [4]) + bytes(100), "twice"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=message):
        open_gguf(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="No such file"):
        open_gguf(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"llama.expert_count": 8}, "experts"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.rope.freq_base": float("nan")}, "freq_base"),
        ({"llama.rope.freq_base": -1.0}, "freq_base"),
    ],
)
def test_unsupported_or_senseless(tmp_path: Path, extra: dict[str, object], message: str) -> None:
    path = write_model(tmp_path / "m.gguf", Spec(extra=extra))
    with open_gguf(path) as file, pytest.raises(EngineError, match=message):
        read_config(file)


def test_other_architecture(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(
        model.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1)
    )
    with open_gguf(path) as file, pytest.raises(UnsupportedModelError, match="mamba"):
        read_config(file)


@pytest.mark.parametrize("missing", ["output_norm.weight", "blk.1.ffn_up.weight"])
def test_missing_tensor(tmp_path: Path, model: Path, missing: str) -> None:
    path = tmp_path / "m.gguf"
    renamed = missing.replace("w", "v")
    path.write_bytes(model.read_bytes().replace(missing.encode(), renamed.encode(), 1))
    with open_gguf(path) as file, pytest.raises(ModelFormatError, match=missing):
        read_config(file)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=9)), max_size=6
    ),
    keep=st.floats(0, 1),
)
def test_damage_is_an_error_and_nothing_else(
    tmp_path: Path, model: Path, edits: list[tuple[int, bytes]], keep: float
) -> None:
    """Bytes changed in the header, the file cut anywhere: an EngineError, or a sound config."""
    data = bytearray(model.read_bytes())
    for at, new in edits:
        data[at : at + len(new)] = new
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data[: int(len(data) * keep)])
    try:
        with open_gguf(path) as file:
            config = read_config(file)
            assert config.vocab_size * config.dim > 0
            for name in file.tensors:
                assert np.sum(file.tensor_bytes(name)) >= 0  # readable to its last byte
    except EngineError as error:
        assert str(error)
