"""/metrics of a real gateway before a real daemon, as Prometheus would read it."""

import asyncio
import shutil
from pathlib import Path

from tests.clients.web.test_metrics import parsed, value
from tests.e2e.web.gateway.process import RunningGateway
from tests.running import RunningDaemon, short_folder


def test_counters_and_a_daemon_that_is_killed(smollm2_path: Path) -> None:
    folder = short_folder()
    daemon = RunningDaemon(folder, smollm2_path).start()  # which completes one token
    gateway = RunningGateway(daemon, folder, "--metrics", "key").start()

    async def test() -> None:
        _device, token = await asyncio.to_thread(gateway.new_key, "prometheus")
        headers = {"authorization": f"Bearer {token}"}
        async with gateway.browser() as scraper:
            assert (await scraper.get("/metrics")).status_code == 401
            before = parsed((await scraper.get("/metrics", headers=headers)).text)
            with daemon.client() as client:
                done = await asyncio.to_thread(
                    lambda: client.ask("Count to ten.", max_tokens=8, temperature=0).wait()
                )
            assert done.timings is not None
            after = parsed((await scraper.get("/metrics", headers=headers)).text)

            def grown(name: str, **labels: str) -> float:
                return value(after, name, **labels) - value(before, name, **labels)

            n = done.timings.completion_tokens
            assert grown("assistant_completion_tokens_total") == n
            assert grown("assistant_prompt_tokens_total") == done.timings.prompt_tokens
            assert grown("assistant_first_token_seconds_count") == 1
            assert grown("assistant_token_seconds_count") == n - 1
            took_s = (done.timings.decode_ms + done.timings.first_token_ms) / 1000
            assert 0 < grown("assistant_token_seconds_sum") <= took_s
            assert value(after, "assistant_requests_total", type="chat", outcome="done") == 1
            assert value(after, "assistant_model_loads_total", result="ok") == 1
            assert value(after, "assistant_memory_bytes", kind="rss") > 10 << 20
            await asyncio.to_thread(daemon.kill)
            while True:
                reply = await scraper.get("/metrics", headers=headers)
                assert reply.status_code == 200
                if value(parsed(reply.text), "assistant_up") == 0:
                    break

    try:
        asyncio.run(test())
    finally:
        assert gateway.stop() == 0, gateway.log.read_text()
        daemon.stop()
        shutil.rmtree(folder)
