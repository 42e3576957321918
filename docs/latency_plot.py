"""Draw docs/voice-latency.svg from benchmarks/voice_latency.py's JSON:

python docs/latency_plot.py docs/voice-latency.json
"""

import json
import sys
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, TOP, BAR, STEP, BOTTOM = 640, 130, 20, 86, 34, 62, 46
STAGES = (
    ("endpoint", "#8fa3b5"),
    ("recognition", "#2a78b8"),
    ("first token", "#c2571a"),
    ("first sentence", "#e0a04a"),
    ("synthesis", "#4a9a5b"),
)


def main() -> None:
    """Command line."""
    rows = json.loads(Path(sys.argv[1]).read_text())
    most = max(max(row["p95"]["heard"], row["p95"]["total"]) for row in rows) * 1.08
    height = TOP + STEP * len(rows) + BOTTOM

    def at(seconds: float) -> float:
        return LEFT + seconds / most * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>from silence to the first sound, {escape(rows[0]['model'])}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="20" y="20">from the end of a question to the first sound of the answer: '
        f"medians of {rows[0]['turns']} turns</text>",
    ]
    x = 20
    for name, colour in STAGES:
        parts.append(f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="43">{name}</text>')
        x += 34 + 7 * len(name)
    x = 24
    parts.append(f'<line x1="{x}" x2="{x}" y1="52" y2="66" stroke="#222" stroke-width="2"/>')
    parts.append(f'<text x="{x + 11}" y="63">sum, 95th percentile</text>')
    x += 160
    parts.append(
        f'<line x1="{x}" x2="{x}" y1="52" y2="66" stroke="#222" stroke-width="2" '
        f'stroke-dasharray="2 2"/>'
        f'<text x="{x + 11}" y="63">median by the clock, from the last sound of the question</text>'
    )
    bottom = TOP + STEP * len(rows)
    for tenths in range(int(most * 2) + 1):
        seconds = tenths / 2
        parts.append(
            f'<line x1="{at(seconds):.1f}" x2="{at(seconds):.1f}" y1="{TOP - 6}" y2="{bottom}" '
            f'stroke="#ddd"/>'
            f'<text x="{at(seconds):.1f}" y="{bottom + 16}" text-anchor="middle">{seconds:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 10}" text-anchor="middle">seconds</text>')
    for number, row in enumerate(rows):
        y = TOP + STEP * number + 6
        voice = escape(row["voice"])
        parts.append(f'<text x="{LEFT - 8}" y="{y + 21}" text-anchor="end">{voice}</text>')
        from_s = 0.0
        for name, colour in STAGES:
            length = row["median"][name]
            parts.append(
                f'<rect x="{at(from_s):.1f}" y="{y}" width="{at(length) - at(0):.1f}" '
                f'height="{BAR}" fill="{colour}">'
                f"<title>{name}: {1000 * length:.0f} ms</title></rect>"
            )
            from_s += length
        for seconds, dashes in (
            (row["p95"]["total"], ""),
            (row["median"]["heard"], ' stroke-dasharray="2 2"'),
        ):
            place = f'x1="{at(seconds):.1f}" x2="{at(seconds):.1f}" y1="{y - 3}" y2="{y + BAR + 3}"'
            parts.append(f'<line {place} stroke="#222" stroke-width="2"{dashes}/>')
    Path(__file__).with_name("voice-latency.svg").write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
