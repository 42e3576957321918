"""The one code that may be open, and everything that limits guessing it.

    open ──right guess──▶ taken ──last message──▶ adding ──device stored──▶ used
     └───────────────────┴── closed, replaced, lost ─┴── not stored ──▶ void

An open one also ends when its time is over, or when it was tried too often.

A code has six digits to be typed and a secret for a QR code; either is used once, within five
minutes. Five wrong tries make it void, and so do more conversations than a person would begin.
Over all codes wrong tries are limited by rate, so that opening one after the other helps nobody
either.
"""

import base64
import contextlib
import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from assistantd.i18n import _, ngettext
from assistantd.log import fields
from assistantd.protocol import DeviceInfo, Limits, Rights
from assistantd.protocol_pairing import SECRET_BYTES, PasswordKind, RefusalReason, read_password

log = logging.getLogger(__name__)

LIFETIME_S = 300.0
MAX_TRIES = 5
MAX_CONVERSATIONS = 20
"""Of the pairing socket, for one code: each is a few milliseconds of computing."""
TRIES_BURST = 10
TRY_EVERY_S = 6.0
"""Over all codes: ten wrong tries at once, then one in so many seconds."""

State = Literal["open", "taken", "adding", "used", "void"]
How = Literal["web", "curve"]


class RefusedError(Exception):
    """A try that was refused; the message says what to do.

    Attributes:
        reason: for programs.
        tries_left: of the code, where a wrong one was tried.
        retry_after_ms: where there were too many tries.
    """

    def __init__(
        self,
        reason: RefusalReason,
        message: str,
        *,
        tries_left: int | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: RefusalReason = reason
        self.tries_left, self.retry_after_ms = tries_left, retry_after_ms


@dataclass(eq=False)
class Code:
    """A code and what became of it. `state` and what follows it belong to `Codes`."""

    digits: str = field(repr=False)
    secret: str = field(repr=False)
    rights: Rights
    limits: Limits
    expires: float
    """By the clock of `Codes`."""
    expires_at: float
    """Unix time, seconds."""
    opened_by: str | None = None
    """Id of the device that did; None for the local user."""
    state: State = "open"
    tries_left: int = MAX_TRIES
    conversations_left: int = MAX_CONVERSATIONS
    end: RefusedError | None = None
    """Why it is void."""
    device: DeviceInfo | None = None
    """Who used it."""

    @property
    def is_live(self) -> bool:
        """Whether a device may still come of it."""
        return self.state in ("open", "taken", "adding")

    def password(self, kind: PasswordKind) -> str:
        """The one or the other."""
        return self.digits if kind == "code" else self.secret


def boot_clock() -> float:
    """Seconds that go on while the machine sleeps: a code does not outlive a closed lid."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Codes:
    """Thread-safe.

    Args:
        on_change: called, without the lock, when the code was tried wrongly or changed its state.
        clock: seconds that only go forward; replaced in unit tests.
    """

    def __init__(
        self, on_change: Callable[[Code], None], clock: Callable[[], float] = boot_clock
    ) -> None:
        self._on_change, self._clock = on_change, clock
        self._lock = threading.Lock()
        self._last: Code | None = None
        self._tokens, self._filled = float(TRIES_BURST), clock()

    @property
    def last(self) -> Code | None:
        """The code that was opened last, whatever became of it."""
        return self._last

    # --- opening and ending ------------------------------------------------------------------

    def open(self, rights: Rights, limits: Limits, opened_by: str | None = None) -> Code:
        """Make a new code; one that is open already becomes void."""
        replaced = RefusedError("closed", _("another code was opened in its place"))
        self._end(self._last, replaced, ("open", "taken"))
        code = Code(
            digits=f"{secrets.randbelow(1_000_000):06}",
            secret=base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode().strip("=").lower(),
            rights=rights,
            limits=limits,
            expires=self._clock() + LIFETIME_S,
            expires_at=time.time() + LIFETIME_S,
            opened_by=opened_by,
        )
        with self._lock:
            self._last = code
        log.info("pairing opened", extra=fields(rights=rights))
        self._on_change(code)
        return code

    def close(self) -> bool:
        """Make the code void, also if a device is being paired with it; whether there was one."""
        why = RefusedError("closed", _("the code was made void"))
        return self._end(self._last, why, ("open", "taken"))

    def expire(self) -> float | None:
        """Make the open code void if its time is over; else the seconds that it has left."""
        code = self._last
        if code is None or code.state != "open":
            return None
        left = code.expires - self._clock()
        if left > 0:
            return left
        self._end(code, _expired(), ("open",))
        return None

    def void(self, code: Code, problem: str) -> None:
        """Make that code void: what took it was lost, or something failed."""
        self._end(code, RefusedError("void", problem), ("open", "taken"))

    def begin_adding(self, code: Code) -> None:
        """The device that took the code is about to be stored; nobody can prevent it any more.

        Raises:
            RefusedError: the code was made void meanwhile.
        """
        with self._lock:
            if code.state == "taken":
                code.state = "adding"
                return
        raise _gone(code)

    def fail(self, code: Code, problem: str) -> None:
        """The device that took the code could not be stored: the code is void."""
        self._end(code, RefusedError("void", problem), ("taken", "adding"))

    def finish(self, code: Code, device: DeviceInfo) -> None:
        """The device that took the code has been added."""
        with self._lock:
            code.state, code.device = "used", device
        log.info("paired", extra=fields(device=device.id, kind=device.kind, rights=device.rights))
        self._on_change(code)

    def _end(self, code: Code | None, why: RefusedError, states: tuple[State, ...]) -> bool:
        if code is None:
            return False
        with self._lock:
            if code.state not in states:
                return False
            code.state, code.end = "void", why
        log.info("pairing ended", extra=fields(reason=why.reason, message=why))
        self._on_change(code)
        return True

    # --- guessing ----------------------------------------------------------------------------

    def claim(self, typed: str) -> Code:
        """Try what was typed; a right guess takes the code, and only one does.

        Raises:
            RefusedError: it is wrong, or there is no code, or too much was tried.
        """
        code = self._current("web")
        guess = typed.encode(errors="replace")
        with contextlib.suppress(ValueError):  # then it is compared as it is, and is wrong
            guess = read_password(typed)[1].encode()
        # both are compared, and each in constant time
        is_code = hmac.compare_digest(guess, code.digits.encode())
        is_secret = hmac.compare_digest(guess, code.secret.encode())
        self.judge(code, is_code | is_secret, "web")
        return code

    def begin(self) -> Code:
        """The code for a conversation of the pairing socket; more than a few make it void.

        Raises:
            RefusedError: there is no code, or too many conversations were begun.
        """
        code = self._current("curve")
        with self._lock:
            code.conversations_left -= 1
            too_many = code.conversations_left < 0
        if too_many:
            self.void(code, too_much_sent())
            raise self._refuse(_gone(code), "curve")
        return code

    def judge(self, code: Code, right: bool, how: How) -> None:
        """Count a try, and take the code if it was right.

        Raises:
            RefusedError: it was wrong, or came too late, or there were too many.
        """
        self.expire()
        refusal: RefusedError | None = None
        with self._lock:
            if code.state != "open":
                refusal = _gone(code)
            elif (wait := self._spend()) > 0:
                refusal = RefusedError(
                    "busy",
                    _("too many tries; wait {n} s, then try again").format(n=math.ceil(wait)),
                    retry_after_ms=math.ceil(1000 * wait),
                )
            elif right:
                code.state = "taken"
                self._tokens += 1  # many devices one after the other are no guessing
            else:
                code.tries_left -= 1
                refusal = _wrong(code.tries_left)
                if code.tries_left == 0:
                    code.state, code.end = "void", RefusedError("void", str(refusal), tries_left=0)
        if refusal is None:
            log.info("pairing code taken", extra=fields(by=how))
        elif refusal.reason == "wrong":
            self._on_change(code)
        if refusal is not None:
            raise self._refuse(refusal, how)

    def _current(self, how: How) -> Code:
        self.expire()
        code = self._last
        if code is None:
            text = _("no code is open; run `assistant pair` on the daemon's machine")
            raise self._refuse(RefusedError("closed", text), how)
        if code.state != "open":
            raise self._refuse(_gone(code), how)
        return code

    def _spend(self) -> float:
        """Take one try, or the seconds until there is one; with the lock."""
        now = self._clock()
        self._tokens = min(TRIES_BURST, self._tokens + (now - self._filled) / TRY_EVERY_S)
        self._filled = now
        if self._tokens < 1:
            return (1 - self._tokens) * TRY_EVERY_S
        self._tokens -= 1
        return 0.0

    def _refuse(self, refusal: RefusedError, how: How) -> RefusedError:
        left = {} if refusal.tries_left is None else {"tries_left": refusal.tries_left}
        log.warning("pairing refused", extra=fields(by=how, reason=refusal.reason, **left))
        return refusal


def too_much_sent() -> str:
    """Why a code is void when somebody sends more than a person who pairs a device."""
    return _("too much was sent to the pairing port; open a new code")


def _expired() -> RefusedError:
    return RefusedError("expired", _("the code has expired; open a new one with `assistant pair`"))


def _wrong(tries_left: int) -> RefusedError:
    if tries_left == 0:
        text = _("too many wrong codes: it is void now; open a new one with `assistant pair`")
    else:
        text = ngettext(
            "that is not the code; {n} try is left",
            "that is not the code; {n} tries are left",
            tries_left,
        ).format(n=tries_left)
    return RefusedError("wrong", text, tries_left=tries_left)


def _gone(code: Code) -> RefusedError:
    """Why a code that is no longer open cannot be used."""
    if code.end is not None and code.end.reason == "expired":
        return _expired()
    text = _("that code was used or is void; open a new one with `assistant pair`")
    return RefusedError("void", text)
