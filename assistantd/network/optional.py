"""What the extra `network` adds to answers; without it they are answers all the same."""

import logging
from typing import Literal

from assistantd.log import fields

log = logging.getLogger(__name__)


def words_if_installed(kind: Literal["fingerprint", "token_words"], text: str) -> str:
    """The words of a key or a token; none where their list is not installed."""
    from assistantd.network import words

    try:
        return words.fingerprint(text) if kind == "fingerprint" else words.token_words(text)
    except ModuleNotFoundError as missing:
        log.info("no words to compare", extra=fields(missing=missing.name, extra="network"))
        return ""
