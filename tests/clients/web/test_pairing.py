"""Pairing, cookies, and who is let in."""

from pathlib import Path

import httpx2

from assistantd.protocol import Devices, Pair
from tests.clients.web.house import CODE, House, trusting, visit


def test_a_code_becomes_a_cookie(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as browser:
            assert (await browser.get("/api/me")).status_code == 401
            given = {"code": CODE, "name": " Phone\x07 of\nmine "}
            answer = await browser.post("/api/pair", json=given)
            assert answer.status_code == 200 and answer.json()["device"]["id"] == "newaaaaa"
            assert "new-token" not in answer.text
            (cookie,) = answer.headers.get_list("set-cookie")
            assert cookie.startswith("assistant=new-token;")
            flags = {part.strip().casefold() for part in cookie.split(";")[1:]}
            assert {"httponly", "samesite=strict", "path=/", "max-age=31536000"} <= flags
            assert "secure" not in flags and not any("domain" in flag for flag in flags)
            me = (await browser.get("/api/me")).json()
            assert me["device"]["name"] == "new" and me["model"] == "tiny"
            assert isinstance(me["hear"], bool) and isinstance(me["speak"], bool)
        (asked,) = house.daemon.wait_for(Pair)
        assert asked == Pair(op="claim", code=CODE, name="Phone of mine")

    visit(tmp_path, test)


def test_over_tls_the_cookie_stays_there(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        secure = house.addresses.secure[0].rstrip("/")
        port = secure.rpartition(":")[2]
        async with house.browser(None) as browser:
            authority = (await browser.get("/ca.crt")).content
        async with httpx2.AsyncClient(
            base_url=f"https://localhost:{port}", verify=trusting(authority)
        ) as phone:
            origin = {"origin": f"https://localhost:{port}"}
            answer = await phone.post(
                "/api/pair", json={"code": CODE, "name": "phone"}, headers=origin
            )
            (cookie,) = answer.headers.get_list("set-cookie")
            assert cookie.startswith("__Host-assistant=new-token;")
            flags = {part.strip().casefold() for part in cookie.split(";")[1:]}
            assert {"secure", "httponly", "samesite=strict", "path=/"} <= flags
            assert (await phone.get("/api/me")).status_code == 200
            # the cookie of plain HTTP is worth nothing here
            phone.cookies.clear()
            assert (
                await phone.get("/api/me", headers={"cookie": "assistant=phone-token"})
            ).status_code == 401

    visit(tmp_path, test, lan=True)


def test_guesses_are_refused_without_asking(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        statuses = []
        async with house.browser(None) as browser:
            for guess in range(30):
                answer = await browser.post("/api/pair", json={"code": f"{guess:06}", "name": "x"})
                statuses.append(answer.status_code)
                if answer.status_code == 429:
                    assert int(answer.headers["retry-after"]) > 0
                    assert answer.json()["error"]["retry_after_ms"] > 0
        assert statuses[:5] == [403] * 5 and set(statuses[5:]) == {429}
        assert len(house.daemon.wait_for(Pair)) == 5

    visit(tmp_path, test)


def test_bad_bodies(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser(None) as browser:
            for body in (
                {},
                {"code": CODE},
                {"code": "1", "name": "x"},
                [],
                {"code": CODE, "name": "x" * 65},
            ):
                answer = await browser.post("/api/pair", json=body)
                assert answer.status_code in (400, 429), body
                assert answer.json()["error"]["code"] in ("bad_request", "busy")

    visit(tmp_path, test)


def test_unpair(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            answer = await browser.post("/api/unpair")
            assert answer.status_code == 200
            assert "Max-Age=0" in answer.headers["set-cookie"]
            answer = await browser.get("/api/me", headers={"cookie": "assistant=phone-token"})
            assert answer.status_code == 401
        revokes = [one for one in house.daemon.wait_for(Devices) if one.op == "revoke"]
        assert [one.id for one in revokes] == ["phoneaaa"]

    visit(tmp_path, test)


def test_a_token_is_asked_for_once(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            for _ in range(5):
                assert (await browser.get("/api/me")).status_code == 200
        asked = [one for one in house.daemon.wait_for(Devices) if one.op == "authenticate"]
        assert len(asked) == 1

    visit(tmp_path, test)


def test_keys_of_programs_are_no_cookies(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser("key-token") as browser:
            assert (await browser.get("/api/me")).status_code == 401
        async with house.browser(None) as browser:
            key = {"authorization": "Bearer phone-token"}
            assert (await browser.get("/v1/models", headers=key)).status_code == 401
            key = {"authorization": "Bearer key-token"}
            assert (await browser.get("/v1/models", headers=key)).status_code == 200
            assert (await browser.get("/api/me", headers=key)).status_code == 401

    visit(tmp_path, test)


def test_many_wrong_cookies_are_not_asked_for(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        statuses = []
        async with house.browser(None) as browser:
            for guess in range(40):
                headers = {"cookie": f"assistant=guess-{guess}"}
                statuses.append((await browser.get("/api/me", headers=headers)).status_code)
        assert statuses[:30] == [401] * 30 and statuses[-1] == 429
        asked = [one for one in house.daemon.wait_for(Devices) if one.op == "authenticate"]
        assert len(asked) <= 31

    visit(tmp_path, test)


def test_while_the_daemon_is_away(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        house.daemon.stop()
        async with house.browser() as browser:
            while (answer := await browser.get("/api/me")).status_code != 503:
                pass  # until the gateway has noticed
            assert answer.json()["error"]["code"] == "unreachable"
            assert "retry-after" in answer.headers

    visit(tmp_path, test)
