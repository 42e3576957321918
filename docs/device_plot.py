"""Draw docs/small-device.svg: python docs/device_plot.py docs/small-device.json"""

import json
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 40, 44
COLOURS = ("#2a78b8", "#c2571a", "#3a8a4d", "#7a5aa8")


def main() -> None:
    """Command line."""
    day = json.loads(Path(sys.argv[1]).read_text())
    samples = day["samples"]
    minutes = [sample["at_s"] / 60 for sample in samples]
    lines: list[tuple[str, list[float]]] = [
        (f"{name}, RssAnon", [s["processes"][name]["rss_anon_bytes"] / 1e6 for s in samples])
        for name in ("daemon", "gateway")
    ]
    lines.append(("daemon, RSS", [s["processes"]["daemon"]["rss_bytes"] / 1e6 for s in samples]))
    lines.append(("both, as the kernel counts", [s["cgroup"] / 1e6 for s in samples]))
    most = 540.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / minutes[-1] * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / most * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        "<title>memory over a simulated day</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20">MB over {minutes[-1]:.0f} minutes, '
        f"{day['counts'].get('questions', 0)} questions; the limit is 537 MB</text>",
    ]
    for tick in range(0, 501, 100):
        x, y = at(0, tick)
        parts.append(
            f'<line x1="{x}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for tick in range(0, int(minutes[-1]) + 1, 10):
        x, y = at(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{tick}</text>')
    for number, (name, values) in enumerate(lines):
        parts += series(name, [at(x, y) for x, y in zip(minutes, values, strict=True)], number)
    Path(__file__).with_name("small-device.svg").write_text("\n".join([*parts, "</svg>"]) + "\n")


def series(name: str, points: Sequence[tuple[float, float]], number: int) -> list[str]:
    """A line, and its name in the legend."""
    colour = COLOURS[number]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    y = TOP + 16 * number + 6
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        f'<circle cx="{LEFT + 20}" cy="{y - 4}" r="3.5" fill="{colour}"/>',
        f'<text x="{LEFT + 30}" y="{y}">{escape(name)}</text>',
    ]


if __name__ == "__main__":
    main()
