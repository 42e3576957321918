"""Makes a database as a released daemon wrote it, by running that release's own code.

    python -m tests.data.schemas.make sessions COMMIT      sessions-N.db.xz, sessions-N.json.xz
    python -m tests.data.schemas.make devices COMMIT       devices-N.db.xz, devices-N.json.xz

N is the schema version that the commit writes. The JSON is what that code reads back. To be run
once for every new schema, at a commit that has it, when it is on main; the files are never made
again, since what is on people's disks does not change either.
"""

import io
import lzma
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

FILL_SESSIONS = r"""
import json, sys
import assistantd
assert "/code/" in assistantd.__file__
from pathlib import Path
import msgspec
from assistantd.sessions import SessionStore

store = SessionStore(Path(sys.argv[1]))

def turn(session, question, answer=None, reason="stop", system=None):
    begun = store.begin_turn(session, question, system)
    if answer is not None:
        model = {"model": "smollm2"} if "model" in store.finish_turn.__annotations__ else {}
        store.finish_turn(begun, answer, reason, **model)

turn("trip", "Where to in Busan?", "Haeundae, then Gamcheon.", system="Be brief.")
turn("trip", "  And\n by \t train? ", "KTX.")
turn("korean", "부산에서 하루를 어떻게 보낼까요? 🌊", "해운대에서\n\n1. 바다\n2. 시장 🦀")
turn("korean", "ㄱㅏㄱ 각 각", "정규화하지 않습니다.", "length", system="한국어로 답하세요.")
turn("odd", "", "")
turn("odd", "nul \0 esc \x1b[31m rtl \u202e'; DROP TABLE messages; --", 'quote " \' ` \\ \r\n')
turn("odd", "\U0010ffff\ufeff\u0301", "a" + "\u0301" * 500, "cancelled")
turn("long", "x" * 300_000, "line of the answer\n" * 20_000, "deadline")
turn("lost", "Was this answered?")
turn("lost", "And this?", "Yes.")
turn("lost", "The last one was not")
turn("abcdefg2.watch", "How far is the moon?", "384,400 km.")
turn("gone", "This is deleted", "And its answer")
if hasattr(store, "delete"):
    store.delete("gone")
else:
    from assistantd.forgetting import Choice
    store.forget(Choice("gone"))
turn("renamed", "First words", "Answer")
store.rename("renamed", "A title of one's own: 제목")
for n in range(300):
    turn("many", f"question {n}", f"answer {n}")
shown = [store.show(session.id) for session in store.list()]
systems = dict(store._db.execute("SELECT id, system FROM sessions"))
store.close()
print(json.dumps({"sessions": msgspec.to_builtins(shown), "systems": systems}))
"""

FILL_DEVICES = r"""
import hashlib, json, sys
import assistantd
assert "/code/" in assistantd.__file__
from pathlib import Path
import msgspec
from assistantd.network.devices import DeviceStore
from assistantd.protocol import Limits

store = DeviceStore(Path(sys.argv[1]))
phone = store.add(name="거실 전화 📱", kind="curve", rights="admin", limits=Limits(),
                  public_key="k" * 40, words="apple brave coral delta")
store.add(name="watch", kind="web", rights="chat", words="one two three four",
          limits=Limits(requests_per_minute=7, max_tokens=8, concurrent=2),
          token_sha256=hashlib.sha256(b"token of the watch").digest())
store.add(name="'; DROP TABLE devices; --", kind="api", rights="chat", limits=Limits(),
          token_sha256=hashlib.sha256(b"token of the editor").digest())
gone = store.add(name="gone", kind="curve", rights="chat", limits=Limits(), public_key="g" * 40)
store.touch(phone.id)
store.revoke(gone.id)
found = store.list()
store.close()
print(json.dumps({"devices": msgspec.to_builtins(found), "revoked": gone.id}))
"""

FILLS = {"sessions": FILL_SESSIONS, "devices": FILL_DEVICES}


def main(kind: str, commit: str) -> None:
    """Write the two files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code = subprocess.run(
            ["git", "archive", commit, "assistantd", "engine"], check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(code)) as archive:
            archive.extractall(folder / "code", filter="data")
        path = folder / "private" / "old.db"
        path.parent.mkdir(0o700)
        done = subprocess.run(
            [sys.executable, "-c", FILLS[kind], str(path)],
            env={**os.environ, "PYTHONPATH": str(folder / "code")},
            cwd=folder,
            check=True,
            capture_output=True,
        )
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.close()
        (HERE / f"{kind}-{version}.db.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
        (HERE / f"{kind}-{version}.json.xz").write_bytes(lzma.compress(done.stdout, preset=9))
        print(f"{kind}-{version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
