"""Which weights stay: the choice, the ring, and the same text whatever the budget."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import generate
from engine.config import read_config
from engine.errors import OverBudgetError, ReadError
from engine.generate import Engine
from engine.gguf import open_gguf
from engine.plan import Planner, Settings
from engine.residency import (
    OUTPUT,
    SECTOR,
    Extent,
    Unit,
    choose,
    comfortable_ring,
    smallest_ring,
    units_of,
)
from engine.sampler import SamplingParams
from tests.engine.running import Runner
from tests.engine.tiny_models import Spec, Type, write_model

MIB = 1 << 20


def unit(layer: int, n_bytes: int, matrix: str = "attn_q") -> Unit:
    return Unit(layer, 0, (Extent(matrix, 0, 1, 0, n_bytes, 0, 0),), n_bytes)


@st.composite
def models(draw: st.DrawFn) -> list[Unit]:
    sizes = draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    units = [unit(i, size * SECTOR) for i, size in enumerate(sizes)]
    n_output = draw(st.integers(1, 4))
    return units + [unit(len(sizes), SECTOR * min(sizes), OUTPUT) for _ in range(n_output)]


@given(models(), st.integers(0, 2000), st.booleans())
def test_what_stays_fits_and_what_does_not_has_a_place(
    units: list[Unit], sectors: int, comfortable: bool
) -> None:
    ring = comfortable_ring(units) if comfortable else smallest_ring(units)
    residency = choose(units, sectors * SECTOR, ring)
    assert residency.resident_bytes <= sectors * SECTOR
    assert residency.resident_bytes + residency.streamed_bytes == sum(u.n_bytes for u in units)
    for one, resident, place in zip(units, residency.resident, residency.places, strict=True):
        assert resident == (place < 0)
        assert resident or 0 <= place <= residency.ring_bytes - one.n_bytes
    # nothing that would still have fitted is streamed
    left = sectors * SECTOR - residency.resident_bytes
    streamed = [u for u, r in zip(units, residency.resident, strict=True) if not r]
    assert all(u.n_bytes > left for u in streamed if u.extents[0].matrix != OUTPUT)


def test_units_are_the_whole_file_but_vectors_and_embedding(smollm2_path: Path) -> None:
    with open_gguf(smollm2_path) as file:
        config = read_config(file)
        units = units_of(file, config)
        rows = dict.fromkeys(file.tensors, 0)
        for one in units:
            for extent in one.extents:
                name = f"blk.{one.layer}.{extent.matrix}"
                if one.layer == config.n_layers:
                    name = "token_embd"
                rows[f"{name}.weight"] += extent.end_row - extent.first_row
        for name, tensor in file.tensors.items():
            is_matrix = len(tensor.shape) == 2
            assert rows[name] == (tensor.n_rows if is_matrix else 0), name


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_streamed_logits_are_the_mapped_ones(smollm2_path: Path, share: float) -> None:
    tokens = np.random.default_rng(1).integers(0, 49152, 40).tolist()
    with Runner(smollm2_path) as runner:
        expected = runner.logits(tokens)
        units = runner.weights.units
        total = sum(u.n_bytes for u in units)
        runner.weights.hold(choose(units, int(share * total), smallest_ring(units)))
        np.testing.assert_array_equal(runner.logits(tokens), expected)  # in one pass, or several
        assert runner.weights.residency is not None
        streamed = runner.weights.residency.streamed_bytes
        assert runner.weights.streamed_bytes >= streamed  # counted; readers are ahead of passes
        np.testing.assert_array_equal(runner.logits(tokens, chunk=7), expected)
        runner.weights.hold(choose(units, total // 2, comfortable_ring(units)))
        np.testing.assert_array_equal(runner.logits(tokens), expected)
        runner.weights.rest()
        np.testing.assert_array_equal(runner.logits(tokens), expected)
        runner.weights.unhold()
        counted = runner.weights.streamed_bytes
        np.testing.assert_array_equal(runner.logits(tokens), expected)
        assert runner.weights.streamed_bytes == counted >= streamed


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q8_0, Type.F32])
def test_small_shapes(tmp_path: Path, kind: Type) -> None:
    path = write_model(tmp_path / "tiny.gguf", Spec(type=kind, vocab_size=301))
    tokens = [1, 5, 9, 3, 5]
    with Runner(path, n_threads=3) as runner:
        expected = runner.logits(tokens)
        residency = choose(runner.weights.units, 0, smallest_ring(runner.weights.units))
        runner.weights.hold(residency)
        np.testing.assert_array_equal(runner.logits(tokens, chunk=2), expected)


def test_a_file_cut_off_while_in_use_is_an_error_not_the_end(
    smollm2_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    whole = path.stat().st_size
    with Runner(path) as runner:
        expected = runner.logits([1, 2, 3])
        units = runner.weights.units
        runner.weights.hold(choose(units, 0, smallest_ring(units)))
        with path.open("r+b") as file:
            file.truncate(whole // 2)
        with pytest.raises(ReadError, match="has changed"):
            runner.logits([1, 2, 3])
    path.write_bytes(smollm2_path.read_bytes())  # it has come back
    with Runner(path) as runner:
        np.testing.assert_array_equal(runner.logits([1, 2, 3]), expected)


# --- plans --------------------------------------------------------------------------------------


def test_a_plan_never_exceeds_its_budget(smollm2_path: Path) -> None:
    with open_gguf(smollm2_path) as file:
        config = read_config(file)

        @given(budget=st.integers(60, 400), base=st.integers(20, 80), kv=st.integers(256, 20000))
        def check(budget: int, base: int, kv: int) -> None:
            planner = Planner(file, config, base * MIB, Settings(2, kv))
            try:
                plan = planner.plan(budget * MIB)
            except OverBudgetError as error:
                assert error.smallest > budget * MIB
                planner.plan(error.smallest)  # and that one does
                return
            assert plan.total <= budget * MIB
            assert min(plan.owners.values()) >= 0
            for other in (budget + 100, budget, 10_000):
                again = planner.replan(plan, other * MIB)
                assert again.total <= other * MIB
                assert (again.max_rows, again.kv_type) == (plan.max_rows, plan.kv_type)

        check()


def test_the_same_text_under_every_budget(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # plans are to be those of a daemon, whatever the process of the tests takes
    monkeypatch.setattr(generate, "resident_bytes", lambda: 50 * MIB)
    texts = set()
    params = SamplingParams(max_tokens=24, temperature=0)
    for budget in (None, 300, 150, 110):
        engine = Engine.load(
            smollm2_path,
            budget=budget and budget * MIB,
            kv_tokens=1024,
            kv_type="q8",  # which tight budgets take anyway
            n_threads=2,
        )
        prompt = engine.chat.encode([{"role": "user", "content": "Name three colours."}])
        texts.add("".join(engine.generate(prompt, params)))
        if budget == 150:
            assert engine.plan.streamed_bytes
            for other in (120, 400, None, 115):
                engine.set_budget(other and other * MIB)
                texts.add("".join(engine.generate(prompt, params)))
                engine.rest()
                texts.add("".join(engine.generate(prompt, params)))
        engine.close()
    assert len(texts) == 1
