"""`assistant reload`: the daemon's settings, read again while it answers."""

import click

from clients.cli.output import clean, print_json, table
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _


@click.command(context_settings=HELP)
@common
@pass_settings
def reload(settings: Settings) -> None:
    """Have the daemon read its settings again, without ending anything.

    \b
    assistant reload           after the configuration was edited; tells what has changed
    assistant reload --json    for scripts: each setting, before and after

    Everything is checked first. If a setting is wrong, or its model cannot be loaded, nothing
    changes and the exit code is 1. While another model is loaded the one before answers, if the
    memory budget has room for both; else what is asked meanwhile waits. Some settings hold only
    after a restart, and are marked so. SIGHUP and `systemctl reload` do the same.
    """
    from assistantd.protocol import Reload
    from clients.cli.connection import CONTROL_TIMEOUT_S, connect
    from clients.cli.progress import Reporter

    # no limit of time: a model may have to be loaded
    with connect(settings, start=False, timeout=None) as client:
        client.ping(CONTROL_TIMEOUT_S)
        with Reporter() as reporter:
            done = client.request(Reload(), reporter)
    if settings.json:
        print_json(done)
        return
    found = done.settings or []
    if found:
        again = _("after a restart")
        rows = [
            (one.key, one.before, one.after, again if one.needs_restart else _("now"))
            for one in found
        ]
        table((_("setting"), _("before"), _("after"), _("holds")), rows)
    else:
        click.echo(_("no setting has changed"))
    if done.model is not None:
        click.echo(clean(_("{name} is loaded").format(name=done.model.name)))
