"""One conversation of assistant-pair/1 on the daemon's side, without a socket."""

import hmac
import logging
import secrets
from collections.abc import Callable

from assistantd.i18n import _
from assistantd.network.codes import Code, Codes, RefusedError
from assistantd.network.devices import DeviceError
from assistantd.protocol_pairing import (
    Confirm,
    Confirmed,
    DaemonKey,
    FromDaemon,
    FromDevice,
    Keys,
    Offer,
    PairingMessageError,
    Promise,
    Sealed,
    Start,
    Started,
    Welcome,
    derive,
    pairing_words,
    spake_daemon,
)

log = logging.getLogger(__name__)

Finish = Callable[[Code, Offer, str], Welcome]


class Conversation:
    """start → confirm → a promise → an offer, each once and in this order.

    Args:
        public_key: the daemon's, Z85.
        finish: adds the device, with its words; called after both ends have proved that they know
            the code.
    """

    def __init__(self, code: Code, codes: Codes, public_key: str, finish: Finish) -> None:
        self._code, self._codes, self._finish = code, codes, finish
        self._key = DaemonKey(server_key=public_key, nonce=secrets.token_bytes(32))
        self._derive: Callable[[], Keys] | None = None
        self._keys: Keys | None = None
        self._promise: Promise | None = None
        self.is_over = False

    def receive(self, message: FromDevice) -> FromDaemon:
        """The answer to what the device said.

        Raises:
            RefusedError: the code was wrong, is void, or the device could not be added.
            PairingMessageError: this message does not come next, or was changed on its way.
        """
        match message:
            case Start() if self._derive is None:
                return self._start(message)
            case Confirm() if self._derive is not None and self._keys is None:
                return self._confirm(message, self._derive)
            case Sealed() if self._keys is not None and not self.is_over:
                if self._promise is None:
                    self._promise = self._keys.open("device", message.box, Promise)
                    return Sealed(box=self._keys.seal("daemon", self._key))
                return self._welcome(message, self._keys, self._promise)
        raise PairingMessageError(f"{type(message).__name__} does not come next")

    def abandon(self) -> None:
        """The device is lost, or failed; a code that it has taken is void."""
        if self._keys is not None and not self.is_over:
            self._codes.void(self._code, _("the device was lost while it was being paired"))
        self.is_over = True

    def _start(self, start: Start) -> Started:
        spake = spake_daemon(start.password, self._code.password(start.password))
        started = Started(message=spake.start())
        # the costly rest, which depends on the code, is computed for those only who pay with a try
        self._derive = lambda: derive(spake, start, started)
        return started

    def _confirm(self, confirm: Confirm, derive_keys: Callable[[], Keys]) -> Confirmed:
        try:
            keys: Keys | None = derive_keys()
        except PairingMessageError:
            keys = None
        right = keys is not None and keys.proves("device", confirm.proof)
        self._codes.judge(self._code, right, "curve")
        assert keys is not None
        self._keys = keys
        return Confirmed(proof=keys.proof("daemon"))

    def _welcome(self, sealed: Sealed, keys: Keys, promise: Promise) -> Sealed:
        offer = keys.open("device", sealed.box, Offer)
        if not hmac.compare_digest(offer.promised(), promise.hash):
            raise PairingMessageError("this is not what was promised")
        try:
            self._codes.begin_adding(self._code)
            welcome = self._finish(self._code, offer, pairing_words(self._key, offer))
        except (DeviceError, RefusedError) as problem:
            self._codes.fail(self._code, str(problem))
            self.is_over = True
            raise RefusedError("void", str(problem)) from problem
        except Exception as problem:
            log.exception("the device could not be added")
            text = _("the device could not be added: {problem}").format(problem=problem)
            self._codes.fail(self._code, text)
            self.is_over = True
            raise RefusedError("void", text) from problem
        self.is_over = True
        return Sealed(box=keys.seal("daemon", welcome))
