"""What the page of phone and watch weighs, and how soon it can be used.

    python -m benchmarks.page [--url URL | --model MODEL.gguf] [--runs 7] [--slow 4] [--json FILE]

Bytes are those of the bodies that come over the wire, from a gateway (--url), or from a stand-in on
this machine. Time to interactive is from the start of the navigation to the moment when a question
can be typed and sent, in headless Chromium, paired: with an empty cache, and with the page kept by
its service worker. --slow makes the processor slower by this factor, as a phone's is.

With --model the gateway and the daemon are the real ones, on this machine, and the time from a tap
on "send" to the first word of the answer is measured, in a new conversation each time; Wi-Fi comes
on top.
"""

import argparse
import contextlib
import gzip
import json
import statistics
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import PHONE, WATCH, Device, Page, chromium
from tests.e2e.web.house import RealHouse
from tests.page_assets import ICONS, shell

FIRST_WORD = """
const done = arguments[arguments.length - 1];
const send = document.querySelector(".composer button[type=submit], .composer .send") ??
  [...document.querySelectorAll("button")].find((one) => one.ariaLabel === "Send");
const from = performance.now();
const watch = new MutationObserver(() => {
  const answers = document.querySelectorAll(".bot .md");
  if (!answers.length || !answers[answers.length - 1].textContent.trim()) return;
  watch.disconnect();
  done(performance.now() - from);
});
watch.observe(document.body, { subtree: true, childList: true, characterData: true });
send.click();
"""
QUESTIONS = ("Name a fruit.", "Name a river.", "Name a colour.", "Name a town.", "Name a bird.")
READY = """
return performance.getEntriesByName("ready").map((mark) => mark.startTime)[0] ?? null;
"""


def weigh(url: str) -> dict[str, tuple[int, int]]:
    """Bytes of each file: plain, and as it comes over the wire."""
    found = {}
    icons = [f"/{name}" for name in ICONS]
    for path in [*shell(), *icons, "/sw.js", "/manifest.webmanifest"]:
        request = urllib.request.Request(url + path, headers={"accept-encoding": "gzip"})
        with urllib.request.urlopen(request) as response:
            body = response.read()
            packed = response.headers.get("content-encoding") == "gzip"
        found[path] = (len(gzip.decompress(body)) if packed else len(body), len(body))
    return found


def measure(page: Page, url: str, runs: int, *, kept: bool) -> list[float]:
    """Milliseconds until it can be used, of each run."""
    found = []
    for _run in range(runs + 1):
        if not kept:
            page.devtools("Storage.clearDataForOrigin", origin=url,
                          storageTypes="service_workers,cache_storage")  # fmt: skip
            page.devtools("Network.clearBrowserCache")
        page.open("about:blank")
        page.open(url + "/" + page.device.query)
        found.append(page.until(lambda: page.js(READY), "ready"))
        if kept:
            page.js_async("await navigator.serviceWorker.ready")
    return found[1:]  # the first one is to warm up


def first_words(page: Page, runs: int) -> list[float]:
    """Milliseconds from the tap to the first word, of each run."""
    found = []
    for run in range(runs + 1):
        page.tap("New conversation")
        page.type("textarea", QUESTIONS[run % len(QUESTIONS)])
        found.append(float(page.driver.execute_async_script(FIRST_WORD)))
        page.button("Copy answer")  # it has ended
    return found[1:]


@contextlib.contextmanager
def served(url: str | None, model: Path | None) -> Iterator[tuple[str, str]]:
    """Address of a gateway, and a code for pairing."""
    if model is not None:
        house = RealHouse(model)
        try:
            yield house.url, house.open_pairing()
        finally:
            house.close()
        return
    if url is not None:
        yield url, input("code that `assistant pair` shows: ")
        return
    with StandInGateway() as gateway:
        yield gateway.url, gateway.open_pairing()


def paired(page: Page, url: str, code: str) -> None:
    """Pair it."""
    page.open(f"{url}/pair{page.device.query}#{code}")
    page.tap("Pair")
    page.tap("They are the same")
    page.one(".phone, .watch")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="of a gateway; a stand-in without")
    parser.add_argument("--model", type=Path, help="with a real gateway and daemon, and this")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--slow", type=float, default=4, help="times slower a processor (4)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with served(args.url, args.model) as (url, code), chromium() as driver:
        weights = weigh(url)
        needed = [weights[path] for path in shell()]
        figures: dict[str, object] = {
            "files": len(needed),
            "plain_bytes": sum(plain for plain, _ in needed),
            "wire_bytes": sum(wire for _, wire in needed),
            "with_icons_bytes": sum(wire for _, wire in weights.values()),
        }
        print(f"{len(needed)} files to open it: {figures['plain_bytes']:,} bytes, "
              f"{figures['wire_bytes']:,} over the wire; "
              f"with all icons {figures['with_icons_bytes']:,}")  # fmt: skip
        for path, (plain, wire) in sorted(weights.items(), key=lambda item: -item[1][1])[:6]:
            print(f"    {path:34}{plain:8,}{wire:8,}")
        devices: list[tuple[str, Device]] = [("phone", PHONE), ("watch", WATCH)]
        for name, device in devices:
            page = Page(driver, device, "en-US", dark=False)
            if name == "phone":
                paired(page, url, code)
            page.devtools("Emulation.setCPUThrottlingRate", rate=args.slow)
            for kept in (False, True):
                runs = measure(page, url, args.runs, kept=kept)
                label = f"{name}, {'kept by the service worker' if kept else 'empty cache'}"
                median = statistics.median(runs)
                figures[label] = {"median_ms": median, "runs_ms": runs}
                print(f"{label:40}{median:7.0f} ms (median of {args.runs}, "
                      f"{min(runs):.0f} to {max(runs):.0f})")  # fmt: skip
            if args.model and name == "phone":
                page.devtools("Emulation.setCPUThrottlingRate", rate=1)
                runs = first_words(page, args.runs)
                figures["tap to first word"] = {"median_ms": statistics.median(runs), "runs": runs}
                print(f"{'tap to first word':40}{statistics.median(runs):7.0f} ms "
                      f"({min(runs):.0f} to {max(runs):.0f})")  # fmt: skip
            page.close()
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
