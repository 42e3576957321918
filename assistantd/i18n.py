"""Messages of the daemon in the user's language: `_("...")`, or `ngettext` for numbers."""

from pathlib import Path

from assistantd.localisation.catalogue import Catalogue, marked

__all__ = ["CATALOGUE", "_", "localise_engine", "marked", "ngettext"]

CATALOGUE = Catalogue("assistantd", Path(__file__).parent / "locale")
_ = CATALOGUE.gettext
ngettext = CATALOGUE.ngettext


def localise_engine() -> None:
    """Let the engine's messages be in the user's language, too."""
    import engine.i18n

    folder = Path(engine.i18n.__file__).parent / "locale"
    engine.i18n.use(Catalogue("engine", folder).gettext)
