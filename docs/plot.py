"""Draw docs/memory.svg from the JSON of benchmarks/low_memory.py: python docs/plot.py FILE.json"""

import json
import math
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
SERIES = (("ours", "assistantd", "#2a78b8"), ("theirs", "llama.cpp", "#c2571a"))


def main() -> None:
    """Command line."""
    rows = sorted(json.loads(Path(sys.argv[1]).read_text()), key=lambda row: row["budget"])
    rows = [row for row in rows if row["clients"] == 1]
    most_x = max(row["budget"] for row in rows) / 2**20 * 1.05
    speeds = [row[key] for row in rows for key, _, _ in SERIES if row[key]]
    least_y, most_y = min(1.0, *speeds), max(speeds) * 1.2

    def at(budget: float, speed: float) -> tuple[float, float]:
        x = LEFT + budget / 2**20 / most_x * (WIDTH - LEFT - RIGHT)
        share = math.log(speed / least_y) / math.log(most_y / least_y)
        return x, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>tokens/s against memory budget, {escape(rows[0]['model'])}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for tick in (
        t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if least_y <= t <= most_y
    ):
        x, y = at(0, tick)
        parts.append(
            f'<line x1="{x}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for row in rows:
        x, y = at(row["budget"], least_y)
        label = f"{row['budget'] / 2**20:.0f}"
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">memory budget, MiB</text>'
    )
    parts.append(f'<text x="{LEFT}" y="20">tokens/s, 1.1B Q4_0 (591 MiB), two threads</text>')
    for number, (key, name, colour) in enumerate(SERIES):
        points = [at(row["budget"], row[key]) for row in rows if row[key]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        x = LEFT + 20
        y = TOP + 18 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="{y}">{name}</text>')
    Path(__file__).with_name("memory.svg").write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
