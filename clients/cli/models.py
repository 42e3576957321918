"""`assistant models`: what the daemon can run, what it has in memory, and where to get more."""

import click

from clients.cli.output import clean, human_bytes, human_count, pairs, print_json, table
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.cli.sizes import size
from clients.i18n import _


@click.group(context_settings=HELP)
def models() -> None:
    """Fetch, show and choose models.

    \b
    assistant models pull smollm2                     the default, 98 MB
    assistant models pull ORG/REPO/FILE.gguf          from Hugging Face
    assistant models pull https://HOST/FILE.gguf
    assistant models show NAME --budget 400M          would it fit, and how fast would it be
    assistant models load FILE                        answer with it from now on
    """


@models.command("list")
@common
@pass_settings
def list_(settings: Settings) -> None:
    """Models on this machine; the one in memory is marked."""
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = client.models()
    if settings.json:
        print_json(found)
        return
    rows = []
    for model in found:
        marks = [
            word
            for word, is_so in ((_("loaded"), model.loaded), (_("default"), model.default))
            if is_so
        ]
        remark = model.problem or ", ".join(marks)
        rows.append((model.name, human_bytes(model.size_bytes), model.quantization or "", remark))
    table((_("model"), _("size"), _("quantization"), ""), rows)


@models.command()
@click.argument("name")
@click.option(
    "--budget",
    type=size,
    metavar="SIZE",
    help="Plan for this budget, as 400M, 1.5G or none; by default the daemon's.",
)
@common
@pass_settings
def show(settings: Settings, name: str, budget: int | None) -> int:
    """A model in detail, and how it would use a memory budget.

    \b
    assistant models show smollm2                  with the budget the daemon has
    assistant models show smollm2 --budget 200M    with another one; nothing is changed
    assistant models show smollm2 --budget none    with as much as it takes

    A model that does not fit whole still works: some weights stay in memory, the others are read
    from the disk for every token, which costs speed. If even that does not fit in the --budget,
    the smallest that would do is shown, and the exit code is 1.
    """
    from clients.cli.connection import connect
    from clients.cli.ledger import budget_row, plan_rows, print_bar

    with connect(settings, start=True) as client:
        model = client.show_model(name, budget)
    plan = model.plan
    code = 1 if budget is not None and plan is not None and plan.smallest is not None else 0
    if settings.json:
        print_json(model)
        return code
    heads = _("{n} ({n_kv} for keys and values)").format(n=model.n_heads, n_kv=model.n_kv_heads)
    rows = [
        (_("name"), model.name),
        (_("problem"), model.problem),
        (_("in memory"), _("yes") if model.loaded else _("no")),
        (_("size on disk"), human_bytes(model.size_bytes)),
        (_("architecture"), model.architecture),
        (_("parameters"), human_count(model.parameters) if model.parameters else None),
        (_("quantization"), model.quantization),
        (_("context"), _tokens(model.context_length)),
        (_("layers"), str(model.n_layers) if model.n_layers else None),
        (_("width"), str(model.embedding_length) if model.embedding_length else None),
        (_("heads"), heads if model.n_heads else None),
        (_("vocabulary"), _tokens(model.vocab_size)),
        (_("tokenizer"), model.tokenizer),
        (_("licence"), model.license),
        (_("source"), model.source),
        ("sha256", model.sha256),
        (_("file"), model.path),
    ]
    if plan is not None:
        rows += [budget_row(plan.budget), *plan_rows(plan, {})]
    pairs([(label, value) for label, value in rows if value])
    if plan is not None:
        print_bar(plan, {})
    return code


def _tokens(n: int | None) -> str | None:
    return _("{n:,} tokens").format(n=n) if n else None


@models.command()
@click.argument("name")
@common
@pass_settings
def pull(settings: Settings, name: str) -> None:
    """Download a model: a name, ORG/REPO/FILE.gguf, or a URL.

    Ctrl-C cancels the download; the next one goes on where it stopped.
    """
    from clients.cli.answering import pull as pull_model
    from clients.cli.connection import connect

    with connect(settings, start=True, timeout=None) as client:
        model = pull_model(client, name)
    if settings.json:
        print_json(model)


@models.command()
@click.argument("name")
@common
@pass_settings
def load(settings: Settings, name: str) -> None:
    """Answer with this model until the daemon restarts."""
    from clients.cli.connection import connect
    from clients.cli.progress import Reporter

    with connect(settings, start=True, timeout=None) as client, Reporter() as reporter:
        model = client.load(name, reporter)
    if settings.json:
        print_json(model)
    else:
        click.echo(clean(_("{name} is loaded").format(name=model.name)))


@models.command()
@common
@pass_settings
def unload(settings: Settings) -> None:
    """Give the model's memory back."""
    from clients.cli.connection import connect

    with connect(settings, start=False, timeout=None) as client:
        done = client.unload()
    if settings.json:
        print_json(done)
    else:
        click.echo(_("no model is in memory now"))


@models.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
@pass_settings
def remove(settings: Settings, names: tuple[str, ...], yes: bool) -> None:
    """Delete models from the disk."""
    import sys

    from clients.cli.connection import connect

    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        question = _("Delete {names} from the disk?").format(names=", ".join(names))
        click.confirm(question, abort=True, err=True)
    with connect(settings, start=True) as client:
        for name in names:
            done = client.remove_model(name)
            if settings.json:
                print_json(done)
            else:
                click.echo(_("{name} was deleted").format(name=name))
