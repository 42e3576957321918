"""What the log makes of what strangers sent."""

import logging

import pytest

from assistantd.log import fields, set_up


def test_nothing_in_it_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up("info", "text")
        log = logging.getLogger("assistantd.test")
        log.info(
            "said", extra=fields(plain="a\x1b[2J", spaced="b \x9b2J", half="\udc80", what="한")
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable() and line.count("2J") == 2 and line.endswith("what=한")
