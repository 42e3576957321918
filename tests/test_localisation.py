"""Which language is chosen, and how wide letters are laid out."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.localisation.catalogue import Catalogue, wanted_languages
from assistantd.localisation.click_help import WideFormatter, split
from assistantd.localisation.width import columns, cut, folded, padded
from tests.catalogues import DOMAINS


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, []),
        ({"LANG": "ko_KR.UTF-8"}, ["ko_KR.UTF-8"]),
        ({"LANG": "C.UTF-8"}, []),
        ({"LANG": "en_GB.UTF-8"}, []),
        ({"LANG": "ko_KR", "LC_MESSAGES": "de_DE"}, ["de_DE"]),
        ({"LANG": "ko_KR", "LC_MESSAGES": "de_DE", "LC_ALL": "fr_FR"}, ["fr_FR"]),
        ({"LANG": "de_DE", "LC_ALL": "", "LANGUAGE": ""}, ["de_DE"]),
        ({"LANG": "de_DE", "LANGUAGE": "de:ko"}, ["de", "ko"]),
        # English needs no catalogue: what comes after it is never wanted
        ({"LANG": "ko_KR", "LANGUAGE": "en:ko"}, []),
        ({"LANG": "ko_KR", "LANGUAGE": "de:en_US:ko"}, ["de"]),
        # what scripts set to have English
        ({"LANG": "ko_KR", "LANGUAGE": "ko", "LC_ALL": "C"}, []),
        ({"LANG": "POSIX", "LANGUAGE": "ko"}, []),
        ({"LANGUAGE": "ko"}, ["ko"]),
    ],
)
def test_the_language(environ: dict[str, str], wanted: list[str]) -> None:
    assert wanted_languages(environ) == wanted


def of_engine() -> Catalogue:
    return Catalogue("engine", next(d.folder for d in DOMAINS if d.name == "engine"))


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("ko_KR.UTF-8", "준비됨"),
        ("ko", "준비됨"),
        ("de:ko", "준비됨"),
        ("de", "ready"),
        ("", "ready"),
    ],
)
def test_a_catalogue(language: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGUAGE", language)
    catalogue = of_engine()
    assert catalogue.gettext("ready") == said
    assert catalogue.is_english == (said == "ready")
    assert catalogue.gettext("no such message") == "no such message"
    assert catalogue.ngettext("{n} cow", "{n} cows", 2) == "{n} cows"
    monkeypatch.setenv("LANGUAGE", "de" if said == "준비됨" else "ko")
    assert catalogue.gettext("ready") == said, "decided once"


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("model", 5), ("모델", 4), ("한a", 3), ("é", 1), ("e\u0301", 1)]
)
def test_columns(text: str, width: int) -> None:
    assert columns(text) == width
    assert padded(text, 7) == text + " " * (7 - width)


def test_cut() -> None:
    assert [cut("한글ab", n) for n in range(7)] == ["", "", "한", "한", "한글", "한글a", "한글ab"]
    assert cut("abc", 2) == "ab"


@given(st.text("한글a ", max_size=80), st.integers(4, 30))
def test_folded(text: str, width: int) -> None:
    lines = folded(text, width)
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert lines
    for line in lines:
        assert columns(line) <= width or " " not in line.strip()


def test_help_of_wide_letters_fits_and_aligns() -> None:
    formatter = WideFormatter(width=40)
    formatter.write_text(
        "메모리에 다 들어가지 않는 모델도 작동합니다. 나머지는 디스크에서 읽습니다."
    )
    formatter.write_dl([("--이름", "값을 하나씩 모두 표시합니다. 길면 접습니다."), ("-x", "둘")])
    text = formatter.getvalue()
    assert "\ue000" not in text
    assert max(map(columns, text.splitlines())) <= 40
    first, *_, last = text.splitlines()[-3:]
    assert columns(first[: first.index("값")]) == columns(last[: last.index("둘")])


def test_help_is_split_into_paragraphs() -> None:
    text = "Do it.\n\n    \b\n    a   b\n    c   d\n\n    More of\n    it.\n    "
    assert split(text) == [("", "Do it."), ("\b\n", "a   b\nc   d"), ("", "More of it.")]
    assert split("x") == [("", "x")]


def test_formatting_is_left_to_click_in_english() -> None:
    assert click.Context.formatter_class is click.HelpFormatter
