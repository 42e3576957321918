"""A page that is spoken to and speaks: a real recogniser, real voices; and what they take."""

import asyncio
import io
import wave

import pytest

from tests.e2e.web.gateway.process import RunningGateway

pytestmark = pytest.mark.voice

SENTENCE = "오늘 날씨가 좋습니다."


def test_what_it_says_it_hears(own_gateway: RunningGateway) -> None:
    before = own_gateway.rss_bytes()

    async def main() -> None:
        async with own_gateway.browser(timeout=120) as browser:
            await own_gateway.pair(browser)
            me = (await browser.get("/api/me")).json()
            assert me["hear"] and me["speak"] and "ko" in me["languages"]
            assert own_gateway.rss_bytes() - before < 8 << 20  # looking costs no memory
            sound = await browser.post("/api/speak", json={"text": SENTENCE})
            assert sound.status_code == 200 and sound.headers["content-type"] == "audio/wav"
            with wave.open(io.BytesIO(sound.content), "rb") as file:
                assert 0.5 < file.getnframes() / file.getframerate() < 10
            wav = {"content-type": "audio/wav"}
            heard = await browser.post("/api/hear", content=sound.content, headers=wav)
            assert heard.status_code == 200, heard.text
            # espeak-ng's Korean is hard to understand: how it ends is enough
            assert heard.json()["text"].replace(" ", "").endswith("니다")
            again = await asyncio.gather(
                *(browser.post("/api/hear", content=sound.content, headers=wav) for _ in range(8))
            )
            assert {answer.status_code for answer in again} == {200, 503}
            bad = await browser.post("/api/hear", content=b"RIFF no sound", headers=wav)
            assert bad.status_code == 400 and bad.json()["error"]["code"] == "bad_request"
            english = await browser.post(
                "/api/speak", json={"text": "Good morning.", "language": "en"}
            )
            assert english.status_code == 200 and len(english.content) > 10_000

    asyncio.run(main())
    print(f"RSS: {before >> 20} MB, after speech {own_gateway.rss_bytes() >> 20} MB")
