"""`assistantd`: the command line of the daemon."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from assistantd import config as configuration
from assistantd import log
from assistantd.i18n import CATALOGUE, _, localise_engine
from assistantd.localisation.click_help import localise
from assistantd.release import VERSION

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
EXIT_CRASHED = 70  # EX_SOFTWARE
EXIT_RUNS_ALREADY = 75  # EX_TEMPFAIL


@click.command(
    "assistantd",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from /etc/assistantd/config.toml, "
    "$XDG_CONFIG_HOME/assistantd/config.toml, the environment (ASSISTANTD_MODEL, "
    "ASSISTANTD_ENGINE_THREADS, …) and the flags above; a later one wins. "
    "Exit status: 0 stopped as asked, 1 cannot start, 2 wrong settings, "
    "70 crashed, 75 another daemon runs already.",
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Read only this file."
)
@click.option("--model", help="Model to serve: a name of `assistant models list`, or a path.")
@click.option("--endpoint", help="Address to listen on, ipc://PATH.")
@click.option("--data-dir", help="Folder of models and sessions.")
@click.option("--threads", type=int, help="Worker threads; 0 for one per physical core.")
@click.option("--kv-tokens", type=int, help="Tokens of conversation kept in memory.")
@click.option("--memory-budget", help='What it may use in all: 400M, "auto" or "none".')
@click.option("--log-level", help="debug, info, warning or error.")
@click.option("--log-format", help="text or json.")
@click.option("--check-config", is_flag=True, help="Check the settings and stop.")
@click.option("--print-config", is_flag=True, help="Print the settings and their origin.")
@click.option("--plan", is_flag=True, help="Show how the model will use the budget and stop.")
@click.option("--json", "as_json", is_flag=True, help="With --plan: one JSON object.")
@click.option("--examine", is_flag=True, help="Tell `assistant doctor` what it asks, and stop.")
@click.option("--warm", is_flag=True, help="Compile the kernels for this processor and stop.")
@click.version_option(VERSION)
def command(
    config_file: Path | None,
    model: str | None,
    endpoint: str | None,
    data_dir: str | None,
    threads: int | None,
    kv_tokens: int | None,
    memory_budget: str | None,
    log_level: str | None,
    log_format: str | None,
    check_config: bool,
    print_config: bool,
    plan: bool,
    as_json: bool,
    examine: bool,
    warm: bool,
) -> None:
    """Serve a local language model over ZeroMQ, until SIGTERM.

    \b
    assistantd                        serve the default model to this user
    assistantd --model ~/phi.gguf     serve another one
    assistantd --print-config         what is set, and where
    assistantd --plan --memory-budget 400M   what would stay in memory, and how fast it will be
    assistantd --warm                 compile ahead, so that the first start is quick
    """
    flags = {
        "model": model,
        "endpoint": endpoint,
        "data_dir": data_dir,
        "engine.threads": threads,
        "engine.kv_tokens": kv_tokens,
        "memory_budget": memory_budget,
        "log_level": log_level,
        "log_format": log_format,
    }
    if examine:
        _examine(config_file, flags)
        return
    try:
        if config_file is not None:
            config_file = config_file.absolute()  # it is read again when the daemon reloads
        loaded = configuration.load(config_file, flags)
    except configuration.ConfigError as problem:
        _fail(str(problem), EXIT_USAGE)
    if print_config:
        click.echo(configuration.to_toml(loaded), nl=False)
        return
    if check_config:
        click.echo(_("the settings are fine"))
        localise_engine()
        _check_model(loaded.config)
        return
    localise_engine()  # from here on the engine is needed, or soon will be
    if warm:
        _warm()
        return
    if plan:
        _plan(loaded.config, as_json)
        return
    _serve(loaded.config, lambda: configuration.load(config_file, flags))


def _serve(
    config: "configuration.Config", read: "Callable[[], configuration.LoadedConfig]"
) -> None:
    """Be the daemon, until it is told to stop."""
    from assistantd.log_crashes import Crashes

    log.set_up(config.log_level, config.log_format, with_text=config.log_text)
    folder = config.data_path / "crashes"
    crashes = Crashes(folder, "assistantd", config.crash_reports, _told(config))
    from assistantd.daemon import AlreadyRunningError, CrashedError, Daemon, StartError

    if not (sys.stdin is not None and sys.stdin.isatty()):
        # until the daemon listens to it: a reload that early would find what was just read
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    daemon = Daemon(config, read, crashes)
    try:
        daemon.run()
    except AlreadyRunningError as problem:
        _fail(str(problem), EXIT_RUNS_ALREADY)
    except StartError as problem:
        crashes.report_failed_start(str(problem))
        _fail(str(problem), EXIT_CANNOT_START)
    except CrashedError:
        sys.exit(EXIT_CRASHED)
    except Exception as problem:
        if not isinstance(problem, OSError) or daemon.has_started:
            crashes.crashed(problem, "the daemon ended by an exception")
            sys.exit(EXIT_CRASHED)
        # the socket or the database cannot be made
        place = f" ({problem.filename})" if problem.filename else ""
        what = _("cannot start: {problem}").format(problem=f"{problem.strerror or problem}{place}")
        crashes.report_failed_start(what)
        _fail(what, EXIT_CANNOT_START)
    finally:
        crashes.close()


def _told(config: "configuration.Config") -> dict[str, str]:
    """What a report of a crash says of the settings: all but what people write in them."""
    told = {key: str(value) for key, value in configuration.flat(config).items()}
    told["chat.system"] = f"({len(config.chat.system)} characters)"
    return told


def _examine(config_file: Path | None, flags: dict[str, Any]) -> None:
    from assistantd.examine import examine
    from assistantd.protocol import to_json

    localise_engine()
    click.echo(to_json(examine(config_file, flags)))


def _warm() -> None:
    from engine.errors import EngineError

    try:
        from engine.native import is_warm, warm
    except EngineError as problem:
        _fail(str(problem), EXIT_USAGE)
    if not is_warm():
        what = _("compiling the kernels for this processor; this takes about a minute")
        click.echo(what, err=True)
    try:
        click.echo(warm())
    except EngineError as problem:
        _fail(str(problem), EXIT_CANNOT_START)


def _check_model(config: "configuration.Config") -> None:
    """Say what is wrong with the model, which may be put there later."""
    from assistantd.models import ModelStore, StoreError

    try:
        problem = ModelStore(config.data_path / "models").show(config.model).problem
    except (StoreError, OSError, RuntimeError) as missing:  # RuntimeError: ~ of nobody
        problem = str(missing)
    if problem:
        text = _("but the model: {problem}").format(problem=problem)
        click.echo(f"assistantd: {text}", err=True)


def _plan(config: "configuration.Config", as_json: bool) -> None:
    from assistantd import budget, protocol
    from assistantd.loading import measure, plan_model
    from assistantd.models import ModelStore, StoreError
    from engine.errors import EngineError

    try:
        path = ModelStore(config.data_path / "models").resolve(config.model)
        n_bytes = budget.resolve(config.memory_budget)
        machine = measure(path, config, n_bytes)
        plan = plan_model(path, config, n_bytes, machine=machine)
    except (StoreError, EngineError) as problem:
        _fail(str(problem), EXIT_CANNOT_START)
    if as_json:
        click.echo(protocol.to_json(plan))
    elif plan.smallest is None:
        click.echo("\n".join(budget.plan_lines(plan, machine)))
    if plan.smallest is not None:
        what = _("{model} does not fit; the smallest budget is {size}").format(
            model=config.model, size=budget.human_mib(plan.smallest)
        )
        _fail(what, EXIT_CANNOT_START)


def _fail(message: str, status: int) -> None:
    click.echo(f"assistantd: {message}", err=True)
    sys.exit(status)


def main() -> None:
    """Entry point of the `assistantd` script; ends the process."""
    localise(command, CATALOGUE)
    command()


if __name__ == "__main__":
    main()
