"""`assistantd`: the command line of the daemon."""

import sys
from importlib.metadata import version
from pathlib import Path

import click

from assistantd import config as configuration
from assistantd import log

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
EXIT_RUNS_ALREADY = 75  # EX_TEMPFAIL


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from /etc/assistantd/config.toml, "
    "$XDG_CONFIG_HOME/assistantd/config.toml, the environment (ASSISTANTD_MODEL, "
    "ASSISTANTD_ENGINE_THREADS, …) and the flags above; a later one wins. "
    "Exit status: 0 stopped as asked, 1 cannot start, 2 wrong settings, "
    "75 another daemon runs already.",
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
@click.option("--warm", is_flag=True, help="Compile the kernels for this processor and stop.")
@click.version_option(version("assistantd"))
def main(
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
    try:
        loaded = configuration.load(config_file, flags)
    except configuration.ConfigError as problem:
        _fail(str(problem), EXIT_USAGE)
    if print_config:
        click.echo(configuration.to_toml(loaded), nl=False)
        return
    if check_config:
        click.echo("the settings are fine")
        return
    if warm:
        _warm()
        return
    if plan:
        _plan(loaded.config, as_json)
        return
    log.set_up(loaded.config.log_level, loaded.config.log_format)
    from assistantd.daemon import AlreadyRunningError, Daemon, StartError

    try:
        Daemon(loaded.config).run()
    except AlreadyRunningError as problem:
        _fail(str(problem), EXIT_RUNS_ALREADY)
    except StartError as problem:
        _fail(str(problem), EXIT_CANNOT_START)
    except OSError as problem:  # the socket or the database cannot be made
        place = f" ({problem.filename})" if problem.filename else ""
        _fail(f"cannot start: {problem.strerror or problem}{place}", EXIT_CANNOT_START)


def _warm() -> None:
    from engine.errors import EngineError

    click.echo("compiling the kernels for this processor; this takes about a minute", err=True)
    try:
        from engine.native import warm
    except EngineError as problem:
        _fail(str(problem), EXIT_USAGE)
    try:
        click.echo(warm())
    except EngineError as problem:
        _fail(str(problem), EXIT_CANNOT_START)


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
        smallest = budget.human_mib(plan.smallest)
        _fail(f"{config.model} does not fit; the smallest budget is {smallest}", EXIT_CANNOT_START)


def _fail(message: str, status: int) -> None:
    click.echo(f"assistantd: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
