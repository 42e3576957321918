"""Voice, network, certificates, services: what is around the daemon."""

import sys
from pathlib import Path

import msgspec
import pytest

from assistantd.protocol import Devices, Done, NetworkInfo
from clients.doctor import network, voice
from clients.doctor.finding import Finding
from clients.doctor.voice import Probed
from clients.web import tls
from tests.clients.doctor.parts import Place, fine, one, program, python_path
from tests.clients.scripted_daemon import ScriptedDaemon, status_info

COMPLETE = Probed(
    problems={},
    settings=True,
    devices={"microphones": ["USB"], "speakers": ["HDMI"]},
    espeak=True,
    recognisers=["small-en"],
    piper=["joe"],
)


def _voice(monkeypatch: pytest.MonkeyPatch, place: Place, **changes: object) -> list[Finding]:
    probed = msgspec.structs.replace(COMPLETE, **changes)
    monkeypatch.setattr(voice, "_probe", lambda: probed)
    return [*place.find("voice")]


def test_voice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware differs: what the probe tells is given here, and the probe itself tried below."""
    fine(_voice(monkeypatch, place))
    none: dict[str, list[str]] = {"microphones": [], "speakers": ["HDMI"]}
    for changes, id, mend in (
        ({"devices": none}, "voice.microphone", "assistant voice devices"),
        ({"devices": {"microphones": ["x"], "speakers": []}}, "voice.speaker", "plug one in"),
        ({"recognisers": []}, "voice.model", "assistant voice models pull"),
        ({"piper": [], "espeak": False}, "voice.espeak", "apt install espeak-ng"),
        ({"piper": []}, "voice.piper", ".onnx"),
        ({"problems": {"settings": "voice.toml: no"}}, "voice.settings", "correct the file"),
        (
            {"devices": None, "problems": {"devices": "PortAudio is missing"}},
            "voice.portaudio",
            "apt install libportaudio2",
        ),
    ):
        finding = one(_voice(monkeypatch, place, **changes), id, "warning")
        assert mend in finding.mend


def test_the_real_probe(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are taken away are missed: the library, the program, the settings."""
    stub = place.folder / "stub"
    stub.mkdir()
    (stub / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    settings = place.folder / "xdg_config_home/assistantd/voice.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('microfone = "x"\n')
    place.set(PYTHONPATH=python_path(stub), PATH="/nowhere")
    found = place.find("voice")
    one(found, "voice.portaudio", "warning")
    assert "microphone" in one(found, "voice.settings", "warning").found
    probed = voice._probe()
    assert isinstance(probed, Probed)
    assert not probed.espeak
    (stub / "numpy.py").write_text("import os; os._exit(7)")
    finding = one(place.find("voice"), "voice.broken", "warning")
    assert "assistantd[voice]" in finding.mend


# --- network -----------------------------------------------------------------------------------


def test_network(place: Place) -> None:
    info = NetworkInfo(on=False)
    n_devices = 0

    def devices(request: object, send: object) -> None:
        assert isinstance(request, Devices)
        send(Done(devices=[_device(number) for number in range(n_devices)]))  # type: ignore[operator]

    assert place.find("network")[0].severity == "skipped"
    with ScriptedDaemon(place.folder) as daemon:
        status = status_info(message="the network stays off: port 5771 is taken")
        daemon.on("status", lambda r, send: send(Done(status=status)))
        daemon.on("network", lambda r, send: send(Done(network=info)))
        daemon.on("devices", devices)

        def find(check: str) -> list[Finding]:
            return [*place.find(check, endpoint=daemon.endpoint)]

        fine(find("network"))
        assert find("mdns")[0].severity == "skipped"  # type: ignore[attr-defined]
        (place.data / "network").mkdir(parents=True)
        (place.data / "network/network.json").write_text('{"on": true}')
        finding = one(find("network"), "network.off", "problem")
        assert "5771" in finding.found and finding.mend == "assistant network on"
        info = NetworkInfo(on=True, endpoint="tcp://*:5771", hosts=["box.local"])
        one(find("network"), "network.devices", "warning")
        n_devices = 2
        assert "box.local" in fine(find("network")).found


def _device(number: int) -> object:
    from tests.clients.web.house import device

    return device(f"d{number}")


def test_being_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(place.folder) as daemon:
        info = NetworkInfo(on=True, endpoint="tcp://*:5771")
        daemon.on("network", lambda r, send: send(Done(network=info)))
        context = place.context(endpoint=daemon.endpoint, root=place.root)
        place.write("sys/class/net/lo/flags", "0x9\n")
        place.write("sys/class/net/eth0/flags", "0x1002\n")  # down
        one(place.find("mdns", context), "mdns.multicast", "warning")
        place.write("sys/class/net/eth0/flags", "0x1003\n")
        assert fine(place.find("mdns", context)).details["interfaces"] == ["eth0"]
        monkeypatch.setitem(sys.modules, "zeroconf", None)
        monkeypatch.setattr(
            network, "find_spec", lambda name: None if name == "zeroconf" else object()
        )
        one(place.find("mdns", context), "mdns.package", "warning")


def test_certificates(place: Place) -> None:
    assert place.find("certificates")[0].severity == "skipped"
    tls.OwnAuthority(tls.folder()).renew()
    fine(place.find("certificates"))
    signed = msgspec.json.decode((tls.folder() / "server.json").read_bytes())
    expires = signed["expires_at"]
    soon, later = (lambda: expires - 3 * 86_400), (lambda: expires + 1)
    one(place.find("certificates", now=soon), "certificates.expiring", "warning")
    one(place.find("certificates", now=later), "certificates.expired", "problem")
    (tls.folder() / "server.key").unlink()
    one(place.find("certificates"), "certificates.missing", "problem")
    (tls.folder() / "server.json").write_text("{")
    finding = one(place.find("certificates"), "certificates.unreadable", "problem")
    assert finding.mend.startswith(f"rm '{tls.folder()}/server.json'")


# --- services ----------------------------------------------------------------------------------


def _unit(place: Place, name: str, program: str) -> Path:
    folder = place.folder / "xdg_config_home/systemd/user"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"[Service]\nType=notify\nExecStart={program}\n")
    return folder / name


def _systemctl(place: Place, **shown: str) -> None:
    """A systemd that says so. The real one is asked by nobody who is not in its session."""
    lines = "; ".join(f"echo {name}={value}" for name, value in shown.items())
    user = f'if [ "$1" = --user ]; then {lines}; fi'
    program(place.folder / "bin", "systemctl", user)


def test_services(place: Place) -> None:
    place.set(PATH=f"{place.folder}/bin:/usr/bin:/bin")
    program(place.folder / "bin", "systemctl", "exit 1")  # no systemd runs
    assert place.find("service")[0].severity == "skipped"
    there = program(place.folder / "venv/bin", "assistantd", "exit 0")
    unit = _unit(place, "assistantd.service", str(there))
    fine(place.find("service"))
    _unit(place, "assistantd.service", "/opt/gone/bin/assistantd --flag")
    finding = one(place.find("service"), "service.path", "problem")
    assert "/opt/gone" in finding.found and finding.mend == "assistant service install --user"
    unit.write_text(f"[Service]\nExecStart=-{there} --flag\n")
    fine(place.find("service"))
    loaded = {"LoadState": "loaded", "UnitFileState": "enabled"}
    _systemctl(place, **loaded, ActiveState="active", SubState="running")
    fine(place.find("service"))
    _systemctl(place, **loaded, ActiveState="failed", Result="exit-code")
    finding = one(place.find("service"), "service.failed", "problem")
    assert "exit-code" in finding.found and "journalctl --user" in finding.mend
    _systemctl(place, **loaded, ActiveState="activating", SubState="auto-restart", NRestarts="7")
    assert "7" in one(place.find("service"), "service.restarting", "problem").found
    _systemctl(place, LoadState="loaded", UnitFileState="disabled", ActiveState="inactive")
    finding = one(place.find("service"), "service.disabled", "warning")
    assert "systemctl --user enable --now assistantd.service" in finding.mend


def test_lingering(place: Place) -> None:
    place.set(PATH=f"{place.folder}/bin:/usr/bin:/bin")
    assert place.find("linger")[0].severity == "skipped"
    _unit(place, "assistantd.service", "/bin/true")
    _systemctl(place, LoadState="loaded", UnitFileState="enabled", ActiveState="active")
    program(place.folder / "bin", "loginctl", "echo no")
    finding = one(place.find("linger"), "linger.off", "warning")
    assert finding.mend == "loginctl enable-linger"
    program(place.folder / "bin", "loginctl", "echo yes")
    fine(place.find("linger"))
