"""The table of checks: complete, documented, tried; and checks that fail themselves."""

import ast
import json
import re
from collections.abc import Iterator

import pytest

from clients.cli.app import run as cli
from clients.doctor.checks import CHECKS, GROUPS, Check, chosen, run
from clients.doctor.context import Context
from clients.doctor.finding import Finding, ok
from tests.clients.doctor.parts import REPOSITORY, Place


def _ids() -> dict[str, str]:
    """Every id that a check may give → its severity; from the sources."""
    found = {}
    for path in (REPOSITORY / "clients/doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in ("problem", "warning") and isinstance(node.args[0], ast.Constant):
                found[str(node.args[0].value)] = node.func.id
    return found


def test_every_id_is_tried_and_documented() -> None:
    ids = _ids()
    assert len(ids) > 70
    names = {check.name for check in CHECKS}
    assert {id.partition(".")[0] for id in ids} <= names
    tests = "".join(
        path.read_text() for path in (REPOSITORY / "tests/clients/doctor").glob("test_*.py")
    )
    document = (REPOSITORY / "docs/observability.md").read_text(encoding="utf-8")
    for id, severity in ids.items():
        assert f'"{id}"' in tests, f"no test makes {id} happen"
        mark = {"problem": "✗", "warning": "!"}[severity]
        assert f"| `{id}` | {mark} |" in document, id
    documented = set(re.findall(r"^\| `([a-z-]+\.[a-z-]+)` \| [✗!] \|", document, re.MULTILINE))
    assert documented == set(ids)
    for check in CHECKS:
        assert f"`{check.name}`" in document


def test_names_are_distinct() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    # a group of one check may have its name
    assert {name for name in names if name in GROUPS} == {"voice"}
    assert {check.group for check in CHECKS} == set(GROUPS)


def test_choosing() -> None:
    assert chosen([]) == list(CHECKS)
    assert [check.name for check in chosen(["clock", "running"])] == [
        "clock",
        "socket",
        "lock",
        "daemon",
        "crashes",
    ]
    with pytest.raises(KeyError):
        chosen(["clock", "nonsense"])


def test_a_check_that_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Context) -> Iterator[Finding]:
        yield ok("clock", "so far")
        raise PermissionError(13, "Permission denied", "/sys/secret")

    first = Check("clock", "machine", "clock", broken)
    found = [finding for _check, finding in run([first, chosen(["python"])[0]], Context())]
    assert [finding.id for finding in found] == ["clock", "clock.failed", "python"]
    assert found[1].severity == "problem" and "/sys/secret" in found[1].found


def test_the_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["doctor", "clock", "swap"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[-1] == "nothing is wrong"
    assert "\x1b" not in said.out
    assert cli(["doctor", "nonsense"]) == 2
    assert "doctor --list" in capsys.readouterr().err
    assert cli(["doctor", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


def test_words_for_people_and_json_for_programs(place: Place) -> None:
    korean = {"LANGUAGE": "ko", "LANG": "ko_KR.UTF-8", "ASSISTANTD_LOG_LEVEL": "loud"}
    done = place.command("config", "-v", **korean)
    assert done.returncode == 1
    assert "✗" in done.stdout and "config.invalid" in done.stdout
    assert "이유: 데몬이 시작되지 않습니다" in done.stdout
    assert "해결: assistantd --check-config" in done.stdout
    done = place.command("config", "--json", **korean)
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["why"] == "the daemon does not start"  # programs read English
