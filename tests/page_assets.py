"""Make what of the page is made: icons, the list of its files, and their version.

    python -m tests.page_assets            after any change of clients/web/page (`make page`)

Icons are drawn by Chromium from icon-any.svg. sw.js and index.html name all files; the version in
sw.js is a hash of them, so a browser that has the page sees that there is a new one.
"""

import base64
import hashlib
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "clients" / "web" / "page"
DRAWING = PAGE / "icon-any.svg"
ICONS = {
    "icon-180.png": (180, "square"),  # iOS rounds it by itself
    "icon-192.png": (192, "as it is"),
    "icon-512.png": (512, "as it is"),
    "icon-maskable-192.png": (192, "maskable"),
    "icon-maskable-512.png": (512, "maskable"),
}
SAFE = 0.8
"""Of a maskable icon so much is seen whatever the mask; the rest is ground."""


def shell() -> list[str]:
    """Paths of all that is needed to open the page without a network."""
    files = sorted(path.name for path in (PAGE / "static").iterdir())
    return ["/", "/icon-any.svg", *(f"/static/{name}" for name in files)]


def modules() -> list[str]:
    """Scripts that the page begins with, so that none waits for the one that names it."""
    return [
        path
        for path in shell()
        if path.endswith(".js") and path not in ("/static/app.js", "/static/recorder.js")
    ]


def with_preloads(html: str) -> str:
    """index.html that names all modules."""
    lines = "".join(f'<link rel="modulepreload" href="{path}">\n' for path in modules())
    html = re.sub(r'<link rel="modulepreload".*>\n', "", html)
    return html.replace('<script type="module"', f'{lines}<script type="module"')


def version(html: str) -> str:
    """A hash of everything in the shell, and of what sw.js does."""
    digest = hashlib.sha256(html.encode())
    for path in shell()[1:]:
        digest.update(path.encode() + (PAGE / path[1:]).read_bytes())
    digest.update((PAGE / "manifest.webmanifest").read_bytes())
    return digest.hexdigest()[:12]


def with_version(worker: str, html: str) -> str:
    """sw.js that names all files and their version."""
    files = "".join(f'  "{path}",\n' for path in shell())
    worker = re.sub(r"const SHELL = \[.*?\];", f"const SHELL = [\n{files}];", worker, flags=re.S)
    return re.sub(r'const VERSION = ".*?";', f'const VERSION = "{version(html)}";', worker)


def drawing(kind: str) -> str:
    """The SVG as this kind of icon wants it."""
    svg = DRAWING.read_text()
    if kind == "as it is":
        return svg
    svg = re.sub(r'(id="ground"[^>]*) rx="\d+"', r"\1", svg)
    if kind == "maskable":
        inset = 512 * (1 - SAFE) / 2
        before, ground, figure = re.split(r'(<rect id="ground"[^>]*/>)', svg)
        figure = figure.removesuffix("</svg>\n").removesuffix("</svg>")
        moved = f'<g transform="translate({inset} {inset}) scale({SAFE})">{figure}</g></svg>'
        return before + ground + moved
    return svg


def draw(svg: str, pixels: int) -> bytes:
    """A PNG of few colours, drawn by Chromium."""
    from PIL import Image

    picture = base64.b64encode(svg.encode()).decode()
    html = (
        "<style>*{margin:0}html{background:transparent}</style>"
        f'<img src="data:image/svg+xml;base64,{picture}" width={pixels} height={pixels}>'
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("icons are drawn by Chromium; on Debian: make web-packages")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "icon.html").write_text(html)
        subprocess.run(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--default-background-color=00000000", f"--window-size={pixels},{pixels + 200}",
             f"--screenshot={folder}/icon.png", f"{folder}/icon.html"],
            check=True, capture_output=True,
        )  # fmt: skip
        # only what has round corners needs to be transparent anywhere
        mode = "RGBA" if "rx=" in svg else "RGB"
        image = Image.open(f"{folder}/icon.png").convert(mode).crop((0, 0, pixels, pixels))
    file = io.BytesIO()
    image.quantize(96, method=Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    """Write them all."""
    for name, (pixels, kind) in ICONS.items():
        (PAGE / name).write_bytes(draw(drawing(kind), pixels))
    index, worker = PAGE / "index.html", PAGE / "sw.js"
    index.write_text(with_preloads(index.read_text()))
    worker.write_text(with_version(worker.read_text(), index.read_text()))


if __name__ == "__main__":
    main()
