"""Hearing and speaking without either being there, and the queue before them."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.web import speech
from clients.web.errors import Refusal
from clients.web.speech import MOST_WAITING, Abilities, Speech, _guess, _Worker
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.web.house import House, visit


@pytest.fixture
def silent_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither espeak-ng nor a model is found; but what Python packages bring."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASSISTANT_VOICE_RECOGNISER", "/no/such/model")


def test_what_is_absent_is_told(tmp_path: Path, silent_machine: None) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            assert (await browser.get("/api/me")).json()["hear"] is False
            wav = {"content-type": "audio/wav"}
            answer = await browser.post("/api/hear", content=b"RIFF", headers=wav)
            assert answer.status_code == 501 and "pip install" in answer.json()["error"]["message"]

    visit(tmp_path, test)


def test_what_may_be_asked(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            for body in (
                {},
                {"text": 1},
                {"text": "x", "language": "klingon!"},
                {"text": "x", "voice": "x"},
            ):
                assert (await browser.post("/api/speak", json=body)).status_code == 400, body
            answer = await browser.post("/api/speak", json={"text": "x" * 5000})
            assert answer.status_code == 413
            for kind in ("text/plain", "audio/mpeg", ""):
                answer = await browser.post(
                    "/api/hear", content=b"x", headers={"content-type": kind}
                )
                assert answer.status_code == 415
        async with house.browser(None) as browser:
            assert (await browser.post("/api/speak", json={"text": "x"})).status_code == 401
            assert (await browser.post("/api/hear")).status_code == 401

    visit(tmp_path, test)


def test_few_wait_and_the_others_are_told() -> None:
    async def main() -> None:
        worker = _Worker("test")
        begun, go_on = threading.Event(), threading.Event()

        def work(wanted: Callable[[], bool]) -> str:
            begun.set()
            assert go_on.wait(WAIT_S)
            return "done"

        tasks = [asyncio.create_task(worker.run(work)) for _ in range(MOST_WAITING + 1)]
        await asyncio.to_thread(begun.wait, WAIT_S)
        with pytest.raises(Refusal) as refused:
            await worker.run(work)
        assert refused.value.status == 503 and refused.value.retry_s > 0
        assert worker.idle_s == 0
        go_on.set()
        assert await asyncio.gather(*tasks) == ["done"] * len(tasks)
        await worker.close()

    asyncio.run(main())


def test_work_that_nobody_waits_for_is_told_so() -> None:
    async def main() -> None:
        worker = _Worker("test")
        begun, ended = threading.Event(), threading.Event()

        def work(wanted: Callable[[], bool]) -> None:
            begun.set()
            while wanted():
                pass
            ended.set()

        task = asyncio.create_task(worker.run(work))
        await asyncio.to_thread(begun.wait, WAIT_S)
        task.cancel()
        assert await asyncio.to_thread(ended.wait, WAIT_S)
        await worker.close()

    asyncio.run(main())


def test_languages_by_letters() -> None:
    assert _guess("안녕", ["en", "ko"]) == "ko"
    assert _guess("Hello", ["en", "ko"]) == "en"
    assert _guess("안녕", ["en"]) == "en" and _guess("Hello", ["fr"]) == "fr"


def test_a_probe_that_fails_is_no_ability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.sys, "executable", "/bin/false")
    assert asyncio.run(Speech().abilities()) == Abilities()
    assert os.path.exists("/bin/false")
