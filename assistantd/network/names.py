"""What a device that may only chat sees of names: its own sessions, and no paths of this machine.

Its session `s` is stored as `DEVICEID.s`. The id is put in front of what comes in, and taken away
from what goes out, in lists as well.
"""

import re
from pathlib import PurePath

from msgspec.structs import replace

from assistantd.protocol import (
    Chat,
    Done,
    Error,
    Forget,
    ForgottenInfo,
    ModelInfo,
    Progress,
    Reply,
    Request,
    SessionInfo,
    Sessions,
)

MAX_SESSION_CHARS = 64
"""Of a session's id as it is stored: SessionId in protocol.py."""
_FOLDERS = re.compile(r"(?<![\w./:~-])~?/(?:[^\s/]+/)+")
"""Where a path leads through, but for the file's name; not the address of a page."""


class Names:
    """The names of one device."""

    def __init__(self, device: str) -> None:
        self._device, self._prefix = device, f"{device}."

    @property
    def max_chars(self) -> int:
        """So long a session's id may be."""
        return MAX_SESSION_CHARS - len(self._prefix)

    def inward(self, request: Request) -> bool:
        """Make a request name what is stored; False if a name is too long for that."""
        if isinstance(request, Forget):
            request.owner = self._device
        if isinstance(request, Chat | Sessions | Forget) and request.session is not None:
            if len(request.session) > self.max_chars:
                return False
            request.session = self._prefix + request.session
        return True

    def outward(self, reply: Reply) -> Reply:
        """A reply as the device may see it; the one that is given is not changed."""
        if isinstance(reply, Error):
            return Error(replace(reply.error, message=self._message(reply.error.message)))
        if isinstance(reply, Progress):
            return replace(reply, message=self._message(reply.message))
        if not isinstance(reply, Done):
            return reply
        reply = replace(reply)
        if reply.session is not None:
            reply.session = self._own(reply.session)
        if reply.sessions is not None:
            own = (self._own(session) for session in reply.sessions)
            reply.sessions = [session for session in own if session is not None]
        if reply.forgotten is not None:
            reply.forgotten = self._forgotten(reply.forgotten)
        if reply.model is not None:
            reply.model = _without_path(reply.model)
        if reply.models is not None:
            reply.models = [_without_path(model) for model in reply.models]
        if reply.message is not None:
            reply.message = self._message(reply.message)
        if reply.status is not None:
            status = replace(reply.status, message=self._message(reply.status.message))
            if status.model is not None:
                status.model = _without_path(status.model)
            reply.status = status
        return reply

    def _message(self, text: str) -> str:
        return _FOLDERS.sub("", text.replace(self._prefix, ""))

    def _forgotten(self, told: ForgottenInfo) -> ForgottenInfo:
        conversations = told.conversations
        if conversations is not None:
            conversations = [
                replace(
                    each,
                    id=each.id.removeprefix(self._prefix),
                    title=each.title.removeprefix(self._prefix),
                )
                for each in conversations
                if each.id.startswith(self._prefix)
            ]
        return replace(told, conversations=conversations, copies=[])

    def _own(self, session: SessionInfo) -> SessionInfo | None:
        if not session.id.startswith(self._prefix):
            return None
        messages = session.messages
        if messages is not None:
            # their numbers would tell how much others write
            messages = [replace(each, id=None, model=_name(each.model)) for each in messages]
        # a session that began without a word has its id for a title
        return replace(
            session,
            id=session.id.removeprefix(self._prefix),
            title=session.title.removeprefix(self._prefix),
            messages=messages,
        )


def _name(model: str | None) -> str | None:
    return None if model is None else PurePath(model).name


def _without_path(model: ModelInfo) -> ModelInfo:
    """A model that was given as a file is called by the file's name alone."""
    problem = None if model.problem is None else _FOLDERS.sub("", model.problem)
    return replace(model, name=PurePath(model.name).name, path=None, problem=problem)
