"""Hearing, answering and speaking need no network, and nobody is told of them.

onnxruntime 1.32 would tell Microsoft; this test found it. vosk imports requests, which looks
whether there is IPv6 by binding a socket to ::1, and closes it.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clients.voice.sound import RATE_HZ, write_wav
from tests.e2e.test_no_network import families, why_not, within
from tests.e2e.voice.talking import said
from tests.e2e.voice.test_conversation import PERSON, QUESTIONS
from tests.running import RunningDaemon

pytestmark = pytest.mark.voice


def test_a_question_in_a_file(daemon: RunningDaemon, tmp_path: Path) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    sound = np.concatenate(
        [np.zeros(RATE_HZ, np.int16), said(QUESTIONS[0], PERSON), np.zeros(RATE_HZ, np.int16)]
    )
    write_wav(tmp_path / "in.wav", sound.astype(np.int16), RATE_HZ)
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            *within(trace),
            *(sys.executable, "-m", "clients.cli", "voice"),
            *("--answer-language", "en", "--voice", "en_US-joe-medium", "--max-tokens", "20"),
            *("--wav", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav")),
            *("--endpoint", daemon.endpoint),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "you: " in done.stdout and "assistant: " in done.stdout
    assert (tmp_path / "out.wav").stat().st_size > 10_000
    calls = trace.read_text()
    probe = r"\d+ +socket\(AF_INET6, SOCK_STREAM.*\n\d+ +bind\(\d+, .*\"::1\".*\n"
    trace.write_text(re.sub(probe, "", calls, count=1))
    assert families(trace) == {"AF_UNIX"}
