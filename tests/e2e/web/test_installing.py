"""The page as an app: what a browser wants before it offers to install one."""

import json

import pytest

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import Page

pytestmark = pytest.mark.web


def test_it_can_be_installed(phone: Page, gateway: StandInGateway) -> None:
    phone.js_async("await navigator.serviceWorker.ready")
    found = phone.devtools("Page.getAppManifest")
    assert found["url"] == f"{gateway.url}/manifest.webmanifest"
    assert found["errors"] == []
    # headless Chromium says of all that it cannot install them, and nothing else of ours
    errors = phone.devtools("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {error["errorId"] for error in errors} <= {"in-incognito"}
    manifest = json.loads(found["data"])
    for icon in [*manifest["icons"], {"src": "/icon-180.png", "sizes": "180x180"}]:
        size = phone.js_async(
            "const image = new Image(); image.src = given[0]; await image.decode();"
            "return [image.naturalWidth, image.naturalHeight]",
            icon["src"],
        )
        if icon["sizes"] != "any":
            assert "x".join(map(str, size)) == icon["sizes"]


def test_what_is_maskable_fills_its_square(phone: Page) -> None:
    corners = phone.js_async(
        "const image = new Image(); image.src = '/icon-maskable-512.png'; await image.decode();"
        "const canvas = new OffscreenCanvas(512, 512); const pen = canvas.getContext('2d');"
        "pen.drawImage(image, 0, 0);"
        "return [[0, 0], [511, 0], [0, 511], [511, 511]].map(([x, y]) =>"
        " pen.getImageData(x, y, 1, 1).data[3])"
    )
    assert corners == [255] * 4


def test_the_way_back_does_not_show_the_code(phone: Page, gateway: StandInGateway) -> None:
    """Whoever is paired and scans another code gets the page, and keeps no code in its address."""
    code = gateway.open_pairing()
    phone.open(f"{gateway.url}/pair#{code}")
    phone.one("textarea")
    phone.until(lambda: phone.js("return location.href") == f"{gateway.url}/", "the code is gone")
