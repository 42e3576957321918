"""Python, packages, commands, extras, the daemon's program, settings: each broken for real."""

import os
import sys
from pathlib import Path

import pytest

from clients.doctor.context import Context
from tests.clients.doctor.parts import Place, all_fine, fine, one, program, python_path


def test_python(place: Place) -> None:
    fine(place.find("python"))
    found = place.find("python", Context(python=(3, 10, 12)))
    assert "3.10.12" in one(found, "python.old", "problem").found


def _distribution(folder: Path, name: str, version: str, requires: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.11\n"
    (info / "METADATA").write_text(text + requires)


def test_packages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fine(place.find("packages"))
    _distribution(place.folder / "old", "click", "7.0")
    monkeypatch.syspath_prepend(place.folder / "old")
    finding = one(place.find("packages"), "packages.old", "problem")
    assert "click is 7.0" in finding.found and '"click>=8.1"' in finding.mend
    _distribution(
        place.folder / "missing", "assistantd", "0.1", "Requires-Dist: absent-package[a]>=2\n"
    )
    monkeypatch.syspath_prepend(place.folder / "missing")
    finding = one(place.find("packages"), "packages.missing", "problem")
    assert '-m pip install --upgrade "absent-package>=2"' in finding.mend


def test_commands_in_the_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(sys.executable).parent
    place.set(PATH=f"{own}:/usr/bin:/bin")
    all_fine(place.find("programs"))
    program(place.folder / "bin", "assistant", "exit 0")
    place.set(PATH=f"{place.folder}/bin:{own}")
    assert str(own) in one(place.find("programs"), "programs.other", "warning").found
    place.set(PATH="/nowhere")
    found = place.find("programs")
    assert [finding.id for finding in found] == ["programs.path"] * 2
    one(found[:1], "programs.path", "warning")


def test_a_program_that_does_not_start(place: Place) -> None:
    stub = place.folder / "stub"
    stub.mkdir()
    (stub / "tomllib.py").write_text("raise ImportError('cut off by a power failure')")
    place.set(PYTHONPATH=python_path(stub))
    context = Context()
    finding = one(place.find("program", context), "program.broken", "problem")
    assert "cut off by a power failure" in finding.found and "--force-reinstall" in finding.mend
    # the others go on, and say why they cannot tell
    assert [finding.severity for finding in place.find("kernels", context)] == ["skipped"]
    fine(place.find("python", context))


def test_half_of_a_program(place: Place) -> None:
    stub = place.folder / "stub" / "llvmlite"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('no libLLVM')")
    place.set(PYTHONPATH=python_path(stub.parent))
    context = Context()
    found = place.find("program", context)
    assert "kernels" in {finding.details["part"] for finding in found}
    one(found[:1], "program.part", "problem")
    assert all("no libLLVM" in finding.found for finding in found)
    assert [finding.severity for finding in place.find("kernels", context)] == ["skipped"]
    assert place.find("model", context)[0].id == "model.missing"  # which needs no LLVM


def test_the_real_program(place: Place) -> None:
    fine(place.find("program", Context()))


def test_extras(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from clients.doctor import installation

    fine(place.find("extras"))
    modules = (*installation.EXTRAS["web"], "a_module_that_is_not_there")
    monkeypatch.setitem(installation.EXTRAS, "web", modules)
    finding = one(place.find("extras"), "extras.incomplete", "warning")
    assert finding.mend.endswith("pip install 'assistantd[web]'")
    assert finding.details["missing"] == ["a_module_that_is_not_there"]


def test_settings(place: Place) -> None:
    file = place.folder / "xdg_config_home/assistantd/config.toml"
    file.parent.mkdir(parents=True)
    fine(place.find("config"))
    file.write_text("[engine]\nthreds = 2\n")
    finding = one(place.find("config"), "config.invalid", "problem")
    assert "engine.threads" in finding.found and finding.mend == "assistantd --check-config"
    file.write_text("model = \n")
    one(place.find("config"), "config.invalid", "problem")
    file.write_text('model = "one"\n')
    place.set(ASSISTANTD_MODEL="two")
    finding = one(place.find("config"), "config.overridden", "warning")
    assert str(file) in finding.found and finding.mend == "unset ASSISTANTD_MODEL"
    os.environ.pop("ASSISTANTD_MODEL")
    place.set(ASSISTANTD_MEMORY_BUDGTE="400M")
    finding = one(place.find("config"), "config.variable", "warning")
    assert "ASSISTANTD_MEMORY_BUDGTE" in finding.found


def test_what_is_wrong_with_the_settings_hides_nothing_else(place: Place) -> None:
    place.set(ASSISTANTD_LIMITS_MAX_ACTIVE="many")
    place.data.mkdir(mode=0o700)
    context = place.context()
    one(place.find("config", context), "config.invalid", "problem")
    assert context.data == place.data
    fine(place.find("disk-space", context))
