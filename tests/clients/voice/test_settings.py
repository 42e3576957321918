"""clients.voice.settings: what wins, and what is said about mistakes."""

from pathlib import Path

import pytest

from clients.voice.errors import VoiceError
from clients.voice.settings import VoiceSettings, load, settings_file


@pytest.fixture
def file(private_home: None) -> Path:
    """voice.toml, where it is looked for; not there yet."""
    path = settings_file()
    path.parent.mkdir(parents=True)
    return path


def test_defaults(private_home: None) -> None:
    assert load({}, {}) == VoiceSettings()


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings_file() == tmp_path / "assistantd" / "voice.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert settings_file() == Path("/home/me/.config/assistantd/voice.toml")


def test_flags_before_environment_before_file(file: Path) -> None:
    file.write_text('volume = 0.1\nlanguage = "ko"\nwake_words = ["자비스"]\n')
    environ = {
        "ASSISTANT_VOICE_LANGUAGE": "en",
        "ASSISTANT_VOICE_WAKE_WORDS": "jarvis, computer",
        "ASSISTANT_VOICE_CUES": "false",
        "ASSISTANT_VOICE_SILENCE_S": "",  # as if it were not there
    }
    loaded = load({"language": "de", "volume": None, "gate": False}, environ)
    assert loaded == VoiceSettings(
        volume=0.1, language="de", wake_words=["jarvis", "computer"], cues=False, gate=False
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume = 2", "volume = 2: .*<= 1"),
        ('volume = "loud"', "volume = 'loud'"),
        ("volum = 1", "no setting 'volum'; did you mean volume?"),
        ("xyzzy = 1", "no setting 'xyzzy'; there are language, "),
        ("volume = ", "not valid TOML"),
        ('interrupt = "never"', "interrupt = 'never'"),
        ('language = "english"', "language = 'english'"),
        ('session = "living room"', "session = 'living room'"),  # the daemon would refuse it
    ],
)
def test_mistakes_in_the_file(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(VoiceError, match=message) as raised:
        load({}, {})
    assert str(file) in str(raised.value)


def test_files_that_cannot_be_read(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(VoiceError, match="not valid TOML"):
        load({}, {})
    file.unlink()
    file.mkdir()
    with pytest.raises(VoiceError, match=r"cannot read .*voice\.toml"):
        load({}, {})


def test_mistakes_elsewhere_say_where(private_home: None) -> None:
    with pytest.raises(VoiceError, match=r"\$ASSISTANT_VOICE_VOLUME: volume = 'x'"):
        load({}, {"ASSISTANT_VOICE_VOLUME": "x"})
    with pytest.raises(VoiceError, match=r"--max-tokens: max_tokens = 1"):
        load({"max_tokens": 1}, {})


def test_session_of_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VoiceSettings(session="kitchen").session_id == "kitchen"
    monkeypatch.setattr("platform.node", lambda: "My Pi.local")
    assert VoiceSettings().session_id == "voice-my-pi-local"
    monkeypatch.setattr("platform.node", lambda: "거실")
    assert VoiceSettings().session_id == "voice---"
    monkeypatch.setattr("platform.node", lambda: "")
    assert VoiceSettings().session_id == "voice-here"
    monkeypatch.setattr("platform.node", lambda: "x" * 200)
    assert len(VoiceSettings().session_id) == 64
