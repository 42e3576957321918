"""Push-to-talk with the real parts: Chromium's microphone, Vosk, the daemon, a voice, the page."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver

from clients.voice.sound import RATE_HZ, write_wav
from tests.e2e.voice.talking import said
from tests.e2e.web.browser import PHONE, chromium, require
from tests.e2e.web.conftest import OpenPage, pair
from tests.e2e.web.house import RealHouse
from tests.e2e.web.test_voice import hears_for, listens

pytestmark = pytest.mark.voice

SPOKEN = """
return performance.getEntriesByType("resource")
  .filter((entry) => entry.name.endsWith("/api/speak") && entry.responseStatus === 200)
  .map((entry) => entry.decodedBodySize);
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser that hears the same question again and again."""
    require()
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    pause = np.zeros(RATE_HZ // 2, np.int16)
    write_wav(path, np.concatenate([said("프랑스의 수도는 어디예요"), pause]), RATE_HZ)
    with chromium(microphone=path) as browser:
        yield browser


@pytest.fixture
def real_house(smollm2_path: Path) -> Iterator[RealHouse]:
    house = RealHouse(smollm2_path)
    yield house
    house.close()


def test_a_question_is_heard_and_its_answer_spoken(
    real_house: RealHouse, new_page: OpenPage
) -> None:
    page = pair(new_page(PHONE), real_house.url, real_house.open_pairing())
    page.hold("Hold to talk")
    listens(page)
    hears_for(page, 5)
    page.let_go()
    # espeak-ng's Korean is not understood word by word: that it is Korean is enough
    question = page.until(lambda: page.text(".user .bubble"), "the question is shown")
    assert any("가" <= letter <= "힣" for letter in question), question
    answer = page.until(lambda: page.text(".bot .md"), "the answer is shown")
    assert answer
    sizes = page.until(lambda: page.js(SPOKEN), "the answer is spoken")
    assert min(sizes) > 10_000
    print(f"\nheard: {question}\nanswered: {answer}\nbytes of sound: {sizes}")
