"""What a chat device sees of sessions and models."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.network.names import MAX_SESSION_CHARS, Names
from assistantd.protocol import (
    Chat,
    Delta,
    Done,
    Error,
    ErrorInfo,
    Forget,
    ForgottenConversation,
    ForgottenInfo,
    ModelInfo,
    Progress,
    QueueStatus,
    SessionId,
    SessionInfo,
    Sessions,
    StatusInfo,
    StoredMessage,
)

DEVICE = "abcdefg2"
NAMES = Names(DEVICE)
sessions = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=64)


def info(session: str, title: str = "Hello") -> SessionInfo:
    return SessionInfo(session, title, 1.0, 2.0, 3)


@given(sessions, st.sampled_from(["show", "rename", "delete"]))
def test_there_and_back(session: str, op: str) -> None:
    chat = Chat(text="x", session=session)
    other = Sessions(op=op, session=session)  # type: ignore[arg-type]
    fits = len(session) <= NAMES.max_chars
    assert NAMES.inward(chat) == NAMES.inward(other) == fits
    if fits:
        stored = chat.session
        assert stored is not None and stored == other.session == f"{DEVICE}.{session}"
        assert msgspec.convert(stored, SessionId) == stored  # which the database takes
        reply = NAMES.outward(Done(session=info(stored)))
        assert isinstance(reply, Done) and reply.session == info(session)


@given(st.lists(sessions, unique=True), st.lists(sessions, unique=True))
def test_a_list_has_its_own_and_no_others(own: list[str], others: list[str]) -> None:
    stored = [info(f"{DEVICE}.{name}") for name in own]
    foreign = [info(name) for name in others if not name.startswith(f"{DEVICE}.")]
    foreign += [info(f"zzzzzzz7.{name}") for name in others]
    before = Done(sessions=[*foreign, *stored])
    after = NAMES.outward(before)
    assert isinstance(after, Done) and after.sessions is not None
    assert [session.id for session in after.sessions] == own
    # the store's own reply is as it was
    assert before.sessions == [*foreign, *stored]


def test_what_is_not_its_own_is_not_shown() -> None:
    assert NAMES.outward(Done(session=info("travel"))) == Done()
    assert NAMES.outward(Done(session=info("abcdefg3.travel"))) == Done()


def test_the_id_is_in_no_title_and_in_no_error() -> None:
    reply = NAMES.outward(Done(session=info(f"{DEVICE}.s", title=f"{DEVICE}.s")))
    assert reply == Done(session=info("s", title="s"))
    problem = Error(ErrorInfo("not_found", f"there is no session '{DEVICE}.s'"))
    told = NAMES.outward(problem)
    assert isinstance(told, Error) and told.error.message == "there is no session 's'"
    assert DEVICE in problem.error.message


def test_it_forgets_its_own_and_is_told_of_its_own() -> None:
    request = Forget(all=True, owner="zzzzzzz7")
    assert NAMES.inward(request) and request == Forget(all=True, owner=DEVICE)
    named = Forget(session="trip")
    assert NAMES.inward(named) and named.session == f"{DEVICE}.trip" and named.owner == DEVICE
    assert not NAMES.inward(Forget(session="x" * 60))
    each = [ForgottenConversation(name, name, 2) for name in (f"{DEVICE}.a", "mine")]
    stored = ForgottenInfo(2, 4, conversations=each, copies=["/home/me/sessions.db.damaged-1"])
    told = NAMES.outward(Done(forgotten=stored))
    assert told == Done(
        forgotten=ForgottenInfo(2, 4, conversations=[ForgottenConversation("a", "a", 2)])
    )
    assert len(stored.copies) == 1


def test_messages_tell_nothing_of_others() -> None:
    message = StoredMessage("assistant", "x", 1.0, "stop", True, 4711, "/home/me/phi.gguf")
    session = info(f"{DEVICE}.s")
    session.messages = [message]
    told = NAMES.outward(Done(session=session))
    assert isinstance(told, Done) and told.session is not None
    assert told.session.messages == [
        StoredMessage("assistant", "x", 1.0, "stop", True, None, "phi.gguf")
    ]
    assert message.id == 4711


def test_models_have_no_path() -> None:
    model = ModelInfo(name="/home/me/phi.gguf", size_bytes=1, path="/home/me/phi.gguf")
    status = StatusInfo("1", 1, 1.0, "ready", model, QueueStatus(0, 0, 1), {}, 0, 0, None)
    reply = NAMES.outward(Done(model=model, models=[model], status=status))
    assert b"/home" not in msgspec.json.encode(reply)
    assert isinstance(reply, Done) and reply.model is not None and reply.model.name == "phi.gguf"
    assert status.model is model and model.path is not None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("(set aside as /home/me/.local/share/a/sessions.db)", "(set aside as sessions.db)"),
        ("/srv/phi.gguf: reading, 5 tokens/s", "phi.gguf: reading, 5 tokens/s"),
        ("cannot open '~/models/phi.gguf'", "cannot open 'phi.gguf'"),
        ("see https://example.org/a/b.gguf and/or a / b, /ca.crt", None),
    ],
)
def test_messages_have_no_path(said: str, shown: str | None) -> None:
    shown = said if shown is None else shown
    status = StatusInfo("1", 1, 1.0, "ready", None, QueueStatus(0, 0, 1), {}, 0, 0, None, said)
    model = ModelInfo(name="phi", size_bytes=1, problem=said)
    reply = NAMES.outward(Done(model=model, models=[model], status=status, message=said))
    assert isinstance(reply, Done) and reply.status is not None and reply.models is not None
    assert reply.message == reply.status.message == reply.models[0].problem == shown
    assert NAMES.outward(Error(ErrorInfo("internal", said))) == Error(ErrorInfo("internal", shown))
    assert NAMES.outward(Progress("load", said, 1, 2)) == Progress("load", shown, 1, 2)
    assert status.message == model.problem == said
    # what the model says is its own
    assert NAMES.outward(Delta(said)) == Delta(said)
    assert NAMES.outward(Done(text=said)) == Done(text=said)


def test_other_requests_and_replies_are_as_they_were() -> None:
    assert NAMES.inward(Chat(text="x")) and NAMES.inward(Sessions(op="list"))
    assert NAMES.outward(Delta("x")) == Delta("x")
    assert NAMES.max_chars == MAX_SESSION_CHARS - 9
