"""A browser for all tests of a run, and for each a tab and a gateway of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web import axe
from tests.e2e.web.browser import PHONE, Device, Page, chromium, require
from tests.e2e.web.house import House, RealHouse

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """Chromium."""
    require()
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def axe_source(pytestconfig: pytest.Config) -> str:
    """axe-core."""
    cache = pytestconfig.cache
    assert cache is not None
    return axe.source(Path(cache.mkdir("axe-core")))


@pytest.fixture
def gateway() -> Iterator[StandInGateway]:
    """A stand-in at a port of its own, so with a storage of its own in the browser."""
    with StandInGateway() as running:
        yield running


@pytest.fixture
def new_page(driver: webdriver.Chrome, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Makes tabs; none may have complained in its console by the end."""
    for name in ("gateway", "house"):
        if name in request.fixturenames:
            request.getfixturevalue(name)  # so that it is stopped after the tabs are closed
    pages: list[Page] = []
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    driver.get_log("browser")

    def make(device: Device = PHONE, *, language: str = "en-US", dark: bool = False) -> Page:
        page = Page(driver, device, language, dark)
        pages.append(page)
        return page

    yield make
    complaints: list[str] = []
    expected: list[str] = []
    for page in pages:
        expected += page.expected
    for page in reversed(pages):
        driver.switch_to.window(page.handle)
        page.expected = expected
        complaints += page.complaints()
        page.close()
    driver.switch_to.window(driver.window_handles[0])
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    assert not complaints


@pytest.fixture(params=["stand-in", "real"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """The one and the other."""
    if request.param == "stand-in":
        with StandInGateway() as gateway:
            gateway.auto = tell_at_length
            gateway.pace_s = 0.02
            yield gateway
    else:
        real = RealHouse(request.getfixturevalue("smollm2_path"))
        yield real
        real.close()


@pytest.fixture
def house_by_tls(smollm2_path: Path) -> Iterator[RealHouse]:
    """The real one, also for other machines."""
    real = RealHouse(smollm2_path, "--lan")
    yield real
    real.close()


def tell_at_length(question: str) -> list[str]:
    """For the stand-in: as many words as the question asks for."""
    n = 300 if "long" in question else 5
    return [f"word{number} " for number in range(n)]


def pair(page: Page, url: str, code: str) -> Page:
    """Open the page as a phone that scanned the code, and pair."""
    page.expected.append(
        "/api/me - Failed to load resource: the server responded with a status of 401"
    )
    page.open(f"{url}/pair{page.device.query}#{code}")
    page.tap("Pair" if page.js("return document.documentElement.lang") == "en" else "페어링")
    page.one(".words")
    page.driver.find_element("css selector", ".card .wide").click()
    page.one(".phone, .watch")
    return page


@pytest.fixture
def phone(new_page: OpenPage, gateway: StandInGateway) -> Page:
    """A phone that is paired with the stand-in."""
    page = pair(new_page(), gateway.url, gateway.open_pairing())
    page.one("textarea")
    return page
