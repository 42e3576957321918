"""`assistant budget`: how much memory the daemon may use, shown and changed while it runs."""

import click

from clients.cli.output import pairs, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.cli.sizes import memory_size
from clients.cli.sizes import size as size_type
from clients.i18n import _


@click.command(context_settings=HELP)
@click.argument("size", required=False, type=size_type, metavar="[SIZE|none]")
@common
@pass_settings
def budget(settings: Settings, size: int | None) -> None:
    """Show or change how much memory the daemon may use.

    \b
    assistant budget           what it is, and what it is used for
    assistant budget 300M      change it; answers under way go on
    assistant budget none      as much as it takes

    It counts everything: the program, the model and the conversations. When weights do not fit
    they are read from the disk as they are needed, so a small budget costs speed and not answers.
    A budget set here holds until the daemon restarts; `memory_budget` in its configuration is for
    good. To see what a budget would do first: assistant models show NAME --budget SIZE.
    """
    from clients.cli.connection import CONTROL_TIMEOUT_S, connect
    from clients.cli.ledger import budget_row, plan_rows, print_bar

    if size is None:
        with connect(settings, start=False) as client:
            info = client.status()
        n_bytes, plan, memory = info.budget, info.plan, info.memory
    else:
        # no limit of time: a model that is being loaded, or a pass, is finished first
        with connect(settings, start=True, timeout=None) as client:
            client.ping(CONTROL_TIMEOUT_S)
            n_bytes, plan, memory = size or None, client.set_budget(size), {}
    if settings.json:
        print_json({"budget": n_bytes, "plan": plan})
        return
    if size is not None:
        if size:
            now = _("the budget is {size}, until the daemon restarts")
        else:
            now = _("the budget is lifted, until the daemon restarts")
        click.echo(now.format(size=memory_size(size)))
    rows = [budget_row(n_bytes)] if size is None else []
    if plan is not None:
        pairs(rows + plan_rows(plan, memory))
        print_bar(plan, memory)
    else:
        pairs([*rows, (_("model"), _("none in memory; the next one will keep to the budget"))])
