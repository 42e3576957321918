"""`assistant bench`: how fast a model runs on this machine, beside what its memory allows.

A program of its own, started by `assistant bench`, because the clients do not import the engine.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Literal, NoReturn

import click

from assistantd import config as configuration
from assistantd.i18n import CATALOGUE, _
from assistantd.localisation.click_help import localise
from assistantd.localisation.width import columns, padded
from assistantd.models import ModelStore, StoreError


@click.command("assistant bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option("-p", "--prompt", default=512, show_default=True, help="Tokens of a prompt.")
@click.option("-n", "--decode", default=64, show_default=True, help="Tokens to decode.")
@click.option("-b", "--together", default=4, show_default=True, help="Sequences decoded together.")
@click.option("-d", "--depth", default="0", show_default=True, help="Tokens before, like 0,4096.")
@click.option("-t", "--threads", default=0, help="Worker threads; one per physical core.")
@click.option("-r", "--rounds", default=3, show_default=True, help="Measurements of each.")
@click.option("--kv-type", type=click.Choice(["f16", "q8"]), default="f16", show_default=True)
@click.option("--profile", is_flag=True, help="Show instead what the time is spent on.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str | None,
    prompt: int,
    decode: int,
    together: int,
    depth: str,
    threads: int,
    rounds: int,
    kv_type: Literal["f16", "q8"],
    profile: bool,
    as_json: bool,
) -> None:
    """Measure prompt and decoding speed of MODEL, a name or a path; the default model if none.

    \b
    pp512        reading a prompt of 512 tokens
    tg64         64 tokens, one by one
    tg64 x4      the same for four answers at once
    @ d4096      after a conversation of 4096 tokens
    """
    try:
        settings = configuration.load(None, {}).config
    except configuration.ConfigError as problem:
        _fail(str(problem))
    try:
        depths = tuple(int(part) for part in depth.split(","))
        if min(depths) < 0 or min(prompt, decode, together, rounds) < 1:
            raise ValueError
    except ValueError:
        raise click.UsageError(
            _("numbers must be positive; --depth takes some like 0,4096")
        ) from None
    try:
        path = ModelStore(settings.data_path / "models").resolve(model or settings.model)
    except StoreError as problem:
        _fail(str(problem))
    from engine.errors import EngineError

    try:
        from engine import bench
        from engine.info import describe
        from engine.probe import memory_speed
        from engine.target import TARGET
        from engine.threads import physical_cores

        n_threads = threads or physical_cores()
        info = describe(path)
        if profile:
            shares = bench.profile(path, n_threads=n_threads, depth=max(depths))
            print(json.dumps(shares) if as_json else _profile_table(shares))
            return
        if sys.stderr.isatty():
            print(_("measuring the memory"), end="\r", file=sys.stderr, flush=True)
        bandwidth = memory_speed(n_threads, n_threads << 28, rounds=30)
        about = {
            "model": info.name,
            "quantization": info.quantization,
            "parameters": info.parameters,
            "size_bytes": info.weights_bytes,
            "threads": n_threads,
            "simd": TARGET,
            "kv_type": kv_type,
            "memory_gigabytes_per_second": round(bandwidth / 1e9, 2),
        }
        if not as_json:
            machine = _(
                "{model}, {mb:.0f} MB, {n} threads, {simd}, cache {kv_type}; "
                "memory reads {speed:.1f} GB/s"
            ).format(
                model=f"{info.name} {info.quantization}",
                mb=info.weights_bytes / 1e6,
                n=n_threads,
                simd=TARGET,
                kv_type=kv_type,
                speed=bandwidth / 1e9,
            )
            print(f"{machine}\n")
            heads = ((_("test"), -20), (_("tokens/s"), 10), ("±", 8), ("GB/s", 8))
            print(_row([*heads, (_("of memory"), 11)]))
        figures = []
        for figure in bench.measure(
            path,
            n_threads=n_threads,
            n_prompt=prompt,
            n_decode=decode,
            n_together=together,
            depths=depths,
            rounds=rounds,
            kv_type=kv_type,
            bandwidth=bandwidth,
        ):
            figures.append(figure)
            if not as_json:
                read, share = figure.gigabytes_per_second, figure.share_of_bandwidth
                print(
                    f"{figure.test:20}{figure.tokens_per_second:10.1f}{figure.spread:8.1f}"
                    + (f"{read:8.1f}{100 * share:9.0f} %" if read and share else ""),
                    flush=True,
                )
        if as_json:
            print(json.dumps({**about, "figures": [dataclasses.asdict(f) for f in figures]}))
    except EngineError as problem:
        _fail(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)


def _row(cells: Sequence[tuple[str, int]]) -> str:
    """Cells in columns of so much width; to the left where it is negative."""
    return "".join(
        padded(text, -width) if width < 0 else " " * (width - columns(text)) + text
        for text, width in cells
    )


def _profile_table(shares: dict[str, dict[str, float]]) -> str:
    names = [name for name in shares["prompt"] if name != "milliseconds"]
    lines = [_row([(_("share of the time"), -20), (_("prompt"), 10), (_("decode"), 10)])]
    lines += [
        f"{name:20}{100 * shares['prompt'][name]:8.1f} %{100 * shares['decode'][name]:8.1f} %"
        for name in names
    ]
    return "\n".join(lines)


def _fail(message: str) -> NoReturn:
    click.echo(f"assistant: {message}", err=True)
    sys.exit(1)


def main() -> None:
    """What `python -m assistantd.bench` runs; ends the process."""
    localise(command, CATALOGUE)
    command(prog_name="assistant bench")


if __name__ == "__main__":
    main()
