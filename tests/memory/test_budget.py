"""The real daemon inside a kernel limit that equals its budget: is it kept, and does it answer?"""

import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import Client
from clients.errors import RequestError
from engine import native
from tests.memory.limits import KernelLimit, NoLimitsError
from tests.running import RunningDaemon, short_folder

MIB = 1 << 20
Q8 = {"ASSISTANTD_ENGINE_KV_TYPE": "q8"}
"""Tight budgets take it anyway; answers are only the same with the same cache."""
QUESTION = "Name three colours of the rainbow."


@contextmanager
def daemon_within(model: Path, mib: int, **settings: str) -> Iterator[RunningDaemon]:
    """A daemon whose budget is `mib` MiB, in a cgroup with this limit.

    Checks at the end, from the kernel's counters, that it was kept.
    """
    native.warm()  # a compiler takes more than these budgets
    folder = short_folder()
    environment = {"ASSISTANTD_MEMORY_BUDGET": f"{mib}M", **Q8}
    try:
        with KernelLimit(mib * MIB) as limit:
            daemon = RunningDaemon(folder, model, {**environment, **settings}, limit.within)
            try:
                yield daemon.start()
                with daemon.client() as client:
                    memory = client.status().memory
                assert memory["peak_rss"] <= mib * MIB
                assert memory["cgroup_limit"] == mib * MIB
                assert limit.peak <= mib * MIB
                assert limit.kills == 0
            finally:
                code = daemon.stop()
            assert code == 0, daemon.log.read_text()
            assert "over budget" not in daemon.log.read_text()
    except NoLimitsError as reason:
        pytest.skip(str(reason))
    finally:
        shutil.rmtree(folder)


def answer(client: Client, question: str = QUESTION, **options: object) -> str:
    return client.ask(question, temperature=0, max_tokens=24, **options).wait().text  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(smollm2_path: Path) -> str:
    """What the model says without any limit."""
    folder = short_folder()
    daemon = RunningDaemon(folder, smollm2_path, {"ASSISTANTD_MEMORY_BUDGET": "none", **Q8})
    try:
        daemon.start()
        with daemon.client() as client:
            return answer(client)
    finally:
        daemon.stop()
        shutil.rmtree(folder)


def test_fully_resident_with_four_clients(smollm2_path: Path, expected: str) -> None:
    with daemon_within(smollm2_path, 256) as daemon:
        with daemon.client() as client:
            plan = client.status().plan
        assert plan is not None and plan.streamed_bytes == 0
        with ThreadPoolExecutor(4) as pool:

            def ask(_: int) -> str:
                with daemon.client() as client:
                    return answer(client)

            assert list(pool.map(ask, range(8))) == [expected] * 8


@pytest.mark.parametrize("mib", [128, 96])
def test_smaller_than_the_model(smollm2_path: Path, expected: str, mib: int) -> None:
    smollm2_path.read_bytes()  # in the page cache, where a touch of the map brings more with it
    with daemon_within(smollm2_path, mib) as daemon, daemon.client() as client:
        plan = client.status().plan
        assert plan is not None and plan.streamed_bytes > 0
        assert sum(plan.owners.values()) <= mib * MIB
        assert answer(client) == expected
        long = "Tell me about rivers. " * 60  # a prompt of several chunks
        assert answer(client, long) and answer(client) == expected
        counters = client.status().counters
        assert counters is not None and counters.streamed_bytes >= 24 * plan.streamed_bytes


def test_too_small_is_refused_with_what_would_do(smollm2_path: Path) -> None:
    folder = short_folder()
    daemon = RunningDaemon(folder, smollm2_path, {"ASSISTANTD_MEMORY_BUDGET": "50M"})
    try:
        with pytest.raises(RequestError, match=r"smallest that would do is \d+M") as error:
            daemon.start()
        assert error.value.code == "over_budget"
        with daemon.client() as client:
            assert client.status().state == "no_model"  # it goes on to serve
    finally:
        daemon.stop()
        shutil.rmtree(folder)


def test_lowered_and_raised_while_running(smollm2_path: Path, expected: str) -> None:
    with daemon_within(smollm2_path, 256) as daemon, daemon.client() as client:
        for mib in (150, 104, 220, 110, 256):
            plan = client.set_budget(mib * MIB)
            assert plan is not None
            assert sum(plan.owners.values()) <= mib * MIB
            assert answer(client) == expected
            assert client.status().memory["rss"] <= mib * MIB
        with pytest.raises(RequestError, match="smallest") as error:
            client.set_budget(30 * MIB)
        assert error.value.code == "over_budget"
        assert answer(client) == expected


def test_idle_weights_go_and_come_back(smollm2_path: Path, expected: str) -> None:
    settings = {"ASSISTANTD_IDLE_UNLOAD_S": "0.5"}
    with daemon_within(smollm2_path, 150, **settings) as daemon, daemon.client() as client:
        assert answer(client) == expected
        busy = client.status().memory["rss"]
        until = time.monotonic() + 60
        while client.status().memory["rss"] > busy - 30 * MIB:
            assert time.monotonic() < until, "the weights' memory was not given back"
        assert answer(client) == expected


def soak(daemon: RunningDaemon, n_requests: int, budgets: list[int], expected: str) -> list[int]:
    """Short requests of four clients, sessions coming and going, the budget up and down.

    Returns the resident bytes but for conversations at each tenth of it, under the same budget.
    """
    seen = []
    with ThreadPoolExecutor(4) as pool:
        clients = [daemon.client() for _ in range(4)]
        rngs = [random.Random(i) for i in range(4)]

        def work(i: int, n: int) -> None:
            for _ in range(n):
                one(clients[i], rngs[i])

        def one(client: Client, rng: random.Random) -> None:
            session, kind = f"s{rng.randrange(12)}", rng.random()
            if kind < 0.6:
                client.ask(f"What is {kind}?", session=session, max_tokens=4).wait()
            elif kind < 0.8:
                client.complete("one, two, " * rng.randrange(1, 80), max_tokens=4).wait()
            elif kind < 0.9:
                client.ask("A story", max_tokens=50).cancel()
            else:
                try:
                    client.delete_session(session)
                except RequestError as problem:
                    assert problem.code == "not_found"

        for tenth in range(10):
            for budget in budgets:
                clients[0].set_budget(budget * MIB)
                n = n_requests // 40 // len(budgets)
                list(pool.map(work, range(4), [n] * 4))
                assert clients[0].status().memory["rss"] <= budget * MIB
            if tenth:  # the first fills caches
                memory = clients[0].status().memory
                seen.append(memory["rss"] - memory["kv_used"])
        assert answer(clients[0]) == expected
        for client in clients:
            client.close()
    return seen


def test_a_short_soak(smollm2_path: Path, expected: str) -> None:
    with daemon_within(smollm2_path, 160) as daemon:
        seen = soak(daemon, 200, [110, 160], expected)
        assert seen[-1] <= max(seen[:4]) + 4 * MIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_soak(smollm2_path: Path, expected: str) -> None:
    with daemon_within(smollm2_path, 256) as daemon:
        seen = soak(daemon, 4000, [120, 150, 256], expected)
        assert seen[-1] <= max(seen[:4]) + 4 * MIB
