"""Messages of the clients in the user's language: `_("...")`, or `ngettext` for numbers."""

from pathlib import Path

from assistantd.localisation.catalogue import Catalogue, marked

__all__ = ["CATALOGUE", "_", "marked", "ngettext"]

CATALOGUE = Catalogue("assistant", Path(__file__).parent / "locale")
_ = CATALOGUE.gettext
ngettext = CATALOGUE.ngettext
