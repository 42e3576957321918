"""/metrics over real sockets: who may read it, and whether Prometheus' own parser takes it."""

import asyncio
import math
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from assistantd.metrics import EngineCounts, RequestCounts, counters
from assistantd.protocol import Done, Error, ErrorInfo, ModelInfo
from clients.web import gateway
from clients.web.exposition import CONTENT_TYPE, Exposition
from clients.web.gateway import Gateway, Options
from tests.clients.scripted_daemon import WAIT_S, plan_info, status_info
from tests.clients.web.house import House, trusting, visit

KEY = {"authorization": "Bearer key-token"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Samples by name and labels; each family has a help and a type, and nothing is there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_escaping_and_numbers() -> None:
    out = Exposition()
    name = 'a "b"\\\nc'
    out.family("x_total", "counter", "Of a\\b\nand c.", [({"name": name}, 2**53), ({}, 0.1)])
    out.family("nothing", "gauge", "Of which there is none.", [])
    out.single("absent", "gauge", "Not known.", None)
    samples = parsed(out.text())
    assert value(samples, "x_total", name=name) == 2**53
    assert value(samples, "x_total") == 0.1
    assert len(samples) == 2
    assert "nothing" not in out.text() and "absent" not in out.text()


def test_histograms_are_cumulative() -> None:
    out = Exposition()
    out.histogram("wait_seconds", "Of waiting.", [0.5, 1.0], [3, 0, 2], 7.25)
    samples = parsed(out.text())
    assert value(samples, "wait_seconds_bucket", le="0.5") == 3
    assert value(samples, "wait_seconds_bucket", le="1") == 3
    assert value(samples, "wait_seconds_bucket", le="+Inf") == 5
    assert value(samples, "wait_seconds_count") == 5
    assert value(samples, "wait_seconds_sum") == 7.25


def full_status() -> object:
    requests, engine = RequestCounts(), EngineCounts()
    requests.ended("chat", Done())
    requests.ended("chat", Error(ErrorInfo("busy", "")))
    engine.completion_tokens = 42
    engine.first_token.observe(0.3)
    counted = counters(requests, engine, bad_frames=3, dropped_clients=1, streamed_bytes=1 << 40)
    model = ModelInfo(name='od"d\\', size_bytes=1, quantization="Q4_0", loaded=True)
    return status_info(model=model, counters=counted, plan=plan_info(), budget=300 << 20)


def test_all_that_the_daemon_tells(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        house.daemon.on("status", lambda r, send: send(Done(status=full_status())))  # type: ignore[arg-type]
        async with house.browser(None) as scraper:
            reply = await scraper.get("/metrics")
        assert reply.status_code == 200
        assert reply.headers["content-type"] == CONTENT_TYPE
        samples = parsed(reply.text)
        assert value(samples, "assistant_up") == 1
        assert value(samples, "assistant_state", state="ready") == 1
        assert value(samples, "assistant_state", state="loading") == 0
        assert value(samples, "assistant_requests_total", type="chat", outcome="done") == 1
        assert value(samples, "assistant_requests_total", type="chat", outcome="busy") == 1
        assert value(samples, "assistant_requests_refused_total") == 1
        assert value(samples, "assistant_completion_tokens_total") == 42
        assert value(samples, "assistant_streamed_bytes_total") == 1 << 40
        assert value(samples, "assistant_first_token_seconds_count") == 1
        assert value(samples, "assistant_first_token_seconds_bucket", le="0.25") == 0
        assert value(samples, "assistant_first_token_seconds_bucket", le="0.5") == 1
        assert value(samples, "assistant_memory_budget_bytes") == 300 << 20
        assert value(samples, "assistant_memory_planned_bytes", owner="weights") == 110 << 20
        assert value(samples, "assistant_model_info", model='od"d\\', quantization="Q4_0") == 1
        assert all(math.isfinite(number) for number in samples.values())
        page = (Path(__file__).parents[3] / "docs/observability.md").read_text(encoding="utf-8")
        for family in text_string_to_metric_families(reply.text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert f"`{name}`" in page

    visit(tmp_path, test, metrics="local")


def test_a_daemon_that_counts_nothing(tmp_path: Path) -> None:
    """One of an earlier version."""

    async def test(house: House) -> None:
        async with house.browser(None) as scraper:
            samples = parsed((await scraper.get("/metrics")).text)
        assert value(samples, "assistant_up") == 1
        assert not [name for name, _labels in samples if name == "assistant_requests_total"]

    visit(tmp_path, test, metrics="local")


def test_the_gateway_counts_itself(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as scraper, house.page() as page:
            for name in ("a", "b", "c/../d"):
                await scraper.get(f"/v1/models/{name}", headers=KEY)
            for path in ("/nothing-1", "/nothing-2", "/"):
                await scraper.get(path)
            await scraper.request("BREW", "/")
            foreign = await scraper.get("/api/me", headers={"host": "elsewhere.example"})
            assert foreign.status_code == 421
            await page.send(type="ping", id="1")
            samples = parsed((await scraper.get("/metrics")).text)
            own = "assistant_gateway_requests_total"
            route = "/v1/models/{name:path}"
            assert value(samples, own, route=route, method="GET", status="404") == 3
            assert value(samples, own, route="other", method="GET", status="404") == 2
            assert value(samples, own, route="page", method="other", status="405") == 1
            assert value(samples, own, route="/api/me", method="GET", status="421") == 1
            assert value(samples, "assistant_gateway_websockets") == 1
            assert value(samples, "assistant_gateway_connections") >= 2
            assert value(samples, "assistant_gateway_resident_memory_bytes") > 1 << 20
            await page.socket.close()
            while True:
                samples = parsed((await scraper.get("/metrics")).text)
                if value(samples, "assistant_gateway_websockets") == 0:
                    break
            assert value(samples, own, route="/ws", method="WS", status="101") == 1

    visit(tmp_path, test, metrics="local")


def test_off_unless_asked_for(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as scraper:
            for headers in ({}, KEY):
                assert (await scraper.get("/metrics", headers=headers)).status_code == 404

    visit(tmp_path, test)


def test_by_key(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as scraper:
            refused = await scraper.get("/metrics")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            for token in ("wrong", "phone-token"):  # a browser's cookie is no key
                headers = {"authorization": f"Bearer {token}"}
                assert (await scraper.get("/metrics", headers=headers)).status_code == 401
            told = await scraper.get("/metrics", headers=KEY)
            assert value(parsed(told.text), "assistant_up") == 1
            house.daemon.revoke("key-token")
            while (await scraper.get("/metrics", headers=KEY)).status_code == 200:
                pass
            assert (await scraper.get("/metrics", headers=KEY)).status_code == 401

    visit(tmp_path, test, metrics="key")


def test_local_is_this_machine_by_plain_http(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as scraper:
            assert (await scraper.get("/metrics")).status_code == 200
            proxied = {"x-forwarded-for": "192.0.2.1"}
            assert (await scraper.get("/metrics", headers=proxied)).status_code == 401
            authority = (await scraper.get("/ca.crt")).content.decode()
        (secure,) = house.addresses.secure
        verify = trusting(authority.encode())
        async with httpx2.AsyncClient(verify=verify, timeout=WAIT_S) as other:
            assert (await other.get(f"{secure}metrics")).status_code == 401
            assert (await other.get(f"{secure}metrics", headers=KEY)).status_code == 200

    visit(tmp_path, test, metrics="local", lan=True, host="127.0.0.1")


def test_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "_FIRST_S", 0.1)

    async def main() -> None:
        told: asyncio.Queue[gateway.Addresses] = asyncio.Queue()
        options = Options(endpoint=f"ipc://{tmp_path}/none.sock", port=0, metrics="local")
        running = Gateway(options, told.put_nowait)
        serving = asyncio.create_task(running.run())
        async with asyncio.timeout(WAIT_S):
            (plain,) = (await told.get()).plain
            async with httpx2.AsyncClient(timeout=WAIT_S) as scraper:
                reply = await scraper.get(f"{plain}metrics")
        running.stop()
        await serving
        assert reply.status_code == 200
        samples = parsed(reply.text)
        assert value(samples, "assistant_up") == 0
        assert not [name for name, _labels in samples if name == "assistant_info"]

    asyncio.run(main())
