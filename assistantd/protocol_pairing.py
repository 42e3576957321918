"""The pairing protocol assistant-pair/1: messages and keys, shared by both ends.

    device → daemon   start      a SPAKE2 message; which password: the code or the secret
    daemon → device   started    the daemon's SPAKE2 message
    device → daemon   confirm    proof that the device knows the key
    daemon → device   confirmed  proof that the daemon does; or `refused`: the code was wrong
    device → daemon   sealed     `Promise`: a hash of what it will say
    daemon → device   sealed     `DaemonKey`: its public key and a random number
    device → daemon   sealed     `Offer`: its public key, its name, and a random number, as promised
    daemon → device   sealed     `Welcome`: what the device is there

A message is two frames, [b"assistant-pair/1", JSON]; bytes are base64 in it. The device proves
first: who does not know the password gets no proof of the daemon's to test guesses with, and each
proof of his own is a counted try. Both show words for both keys and random numbers; because of the
promise, who is in between and knows the password has to choose all of his own before he sees those
of the others, and cannot compute keys until the words agree. docs/network.md has the threat model.

As assistantd.protocol, this imports nothing of the daemon. `spake2`, `cryptography` and `mnemonic`
are imported when they are needed; without them functions raise ModuleNotFoundError.
"""

import hashlib
import hmac
import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from assistantd.protocol import DeviceInfo, DeviceName

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from spake2 import SPAKE2_A, SPAKE2_B

PROTOCOL = b"assistant-pair/1"
MAX_BODY_BYTES = 2048
SERVICE = "_assistantd._tcp.local."
"""What mDNS calls a daemon."""
EXTRA = "network"
"""Of the package: what has to be installed for pairing."""

PasswordKind = Literal["code", "secret"]
Side = Literal["device", "daemon"]
RefusalReason = Literal["wrong", "void", "expired", "closed", "busy", "bad_message"]

SpakeMessage = Annotated[bytes, Meta(min_length=33, max_length=33)]
Proof = Annotated[bytes, Meta(min_length=32, max_length=32)]
Box = Annotated[bytes, Meta(min_length=17, max_length=1280)]
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Z85Key = Annotated[str, Meta(pattern=r"^[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}$")]

_T = TypeVar("_T")
_S = TypeVar("_S", bound=Struct)

_CODE = re.compile(r"[0-9]{6}")
_SECRET = re.compile(r"[a-z2-7]{26}")
SECRET_BYTES = 16
N_WORDS = 4
_WORD_BITS = 11


class PairingMessageError(Exception):
    """A message that does not follow assistant-pair/1, or that was not sealed by the other end."""


class _Message(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base; the tag field is "type"."""


class Start(_Message, tag="start"):
    """The device begins."""

    message: SpakeMessage
    password: PasswordKind


class Started(_Message, tag="started"):
    """The daemon's answer; says nothing about whether the password was right."""

    message: SpakeMessage


class Confirm(_Message, tag="confirm"):
    """The device's proof."""

    proof: Proof


class Confirmed(_Message, tag="confirmed"):
    """The daemon's proof, only after the device's was right."""

    proof: Proof


class Sealed(_Message, tag="sealed"):
    """One of the four below, encrypted."""

    box: Box


class Refused(_Message, tag="refused"):
    """The end of a conversation. Not authentic: anybody in between can say this."""

    reason: RefusalReason
    message: Annotated[str, Meta(max_length=500)]
    tries_left: int | None = None


FromDevice = Start | Confirm | Sealed
FromDaemon = Started | Confirmed | Sealed | Refused


class Promise(Struct, forbid_unknown_fields=True):
    """The device has chosen, and will not choose again."""

    hash: Proof
    """Of the `Offer`: `promised`."""


class DaemonKey(Struct, forbid_unknown_fields=True):
    """Whom the device talks to from now on."""

    server_key: Z85Key
    nonce: Nonce


class Offer(Struct, forbid_unknown_fields=True):
    """Who the device is."""

    public_key: Z85Key
    name: DeviceName
    nonce: Nonce

    def promised(self) -> bytes:
        """The hash of a `Promise` for this."""
        said = self.nonce + self.public_key.encode() + self.name.encode()
        return hashlib.sha256(PROTOCOL + b" promise\0" + said).digest()


class Welcome(Struct, forbid_unknown_fields=True):
    """What the device is there."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    """Of the encrypted conversations."""
    host: Annotated[str, Meta(max_length=255)]
    """What the daemon's machine calls itself."""
    device: DeviceInfo


def require_packages() -> None:
    """Import what pairing needs, so that it is there when a code is typed.

    Raises:
        ModuleNotFoundError: a package of the extra is not installed.
    """
    for module in ("spake2", "cryptography.hazmat.primitives.ciphers.aead", "mnemonic"):
        importlib.import_module(module)


# --- frames ----------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder()
_device_decoder: msgspec.json.Decoder[FromDevice] = msgspec.json.Decoder(FromDevice)
_daemon_decoder: msgspec.json.Decoder[FromDaemon] = msgspec.json.Decoder(FromDaemon)


def encode(message: FromDevice | FromDaemon) -> list[bytes]:
    """The frames of a message."""
    return [PROTOCOL, _encoder.encode(message)]


def decode_from_device(frames: list[bytes]) -> FromDevice:
    """What a device sent, without the ROUTER's identity.

    Raises:
        PairingMessageError: it is no such message.
    """
    return _decode(frames, _device_decoder)


def decode_from_daemon(frames: list[bytes]) -> FromDaemon:
    """What the daemon sent.

    Raises:
        PairingMessageError: it is no such message.
    """
    return _decode(frames, _daemon_decoder)


def _decode(frames: list[bytes], decoder: "msgspec.json.Decoder[_T]") -> _T:
    if len(frames) != 2 or frames[0] != PROTOCOL or len(frames[1]) > MAX_BODY_BYTES:
        sizes = [len(frame) for frame in frames[:4]]
        raise PairingMessageError(f"not {PROTOCOL.decode()}: {len(frames)} frames of {sizes} bytes")
    try:
        return decoder.decode(frames[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PairingMessageError(f"cannot read the message: {error}") from error


# --- passwords and words ---------------------------------------------------------------------


def read_password(typed: str) -> tuple[PasswordKind, str]:
    """What was typed or scanned, as the six digits or the secret that it stands for.

    Spaces, hyphens and capitals do not matter.

    Raises:
        ValueError: it is neither.
    """
    plain = re.sub(r"[\s-]", "", typed).lower()
    if _CODE.fullmatch(plain):
        return "code", plain
    if _SECRET.fullmatch(plain):
        return "secret", plain
    raise ValueError("neither six digits nor a secret")


def words(data: bytes) -> str:
    """Four English words for 44 bits of SHA-256(data), for people to compare."""
    from mnemonic import Mnemonic

    bits = N_WORDS * _WORD_BITS
    number = int.from_bytes(hashlib.sha256(data).digest(), "big") >> (256 - bits)
    shifts = range(bits - _WORD_BITS, -1, -_WORD_BITS)
    wordlist = Mnemonic("english").wordlist
    return " ".join(wordlist[number >> shift & (1 << _WORD_BITS) - 1] for shift in shifts)


def pairing_words(daemon: DaemonKey, offer: Offer) -> str:
    """The words that both ends of a pairing show, if nobody is in between."""
    keys = daemon.server_key.encode() + offer.public_key.encode()
    return words(PROTOCOL + b" words\0" + daemon.nonce + offer.nonce + keys)


# --- keys ------------------------------------------------------------------------------------


def spake_device(kind: PasswordKind, password: str) -> "SPAKE2_A":
    """The device's half of SPAKE2."""
    from spake2 import SPAKE2_A

    return SPAKE2_A(_password(kind, password), **_IDENTITIES)


def spake_daemon(kind: PasswordKind, password: str) -> "SPAKE2_B":
    """The daemon's half of SPAKE2."""
    from spake2 import SPAKE2_B

    return SPAKE2_B(_password(kind, password), **_IDENTITIES)


# both ends put them into the key, so that no message of another protocol fits
_IDENTITIES = {"idA": PROTOCOL + b" device", "idB": PROTOCOL + b" daemon"}


def _password(kind: PasswordKind, password: str) -> bytes:
    return f"{kind}:{password}".encode()


@dataclass(frozen=True)
class Keys:
    """What both ends derive of a conversation; each key has one purpose and one sender."""

    transcript: bytes
    _proving: dict[Side, bytes]
    _sealing: dict[Side, bytes]

    def proof(self, side: Side) -> bytes:
        """That `side` knows the key and saw the same messages."""
        return hmac.digest(self._proving[side], self.transcript, "sha256")

    def proves(self, side: Side, proof: bytes) -> bool:
        """Whether that is the proof of `side`; takes the same time either way."""
        return hmac.compare_digest(self.proof(side), proof)

    def seal(self, side: Side, value: Promise | DaemonKey | Offer | Welcome) -> bytes:
        """Encrypt and authenticate; each kind of message once."""
        nonce = _nonce(type(value))
        return self._cipher(side).encrypt(nonce, _encoder.encode(value), self.transcript)

    def open(self, side: Side, box: bytes, kind: type[_S]) -> _S:
        """What `side` sealed.

        Raises:
            PairingMessageError: it did not, or it is no `kind`.
        """
        from cryptography.exceptions import InvalidTag

        try:
            plain = self._cipher(side).decrypt(_nonce(kind), box, self.transcript)
            return msgspec.json.decode(plain, type=kind)
        except InvalidTag as error:
            raise PairingMessageError("the box was changed on its way") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PairingMessageError(f"cannot read what is in the box: {error}") from error

    def _cipher(self, side: Side) -> "ChaCha20Poly1305":
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        return ChaCha20Poly1305(self._sealing[side])


def _nonce(kind: type[Struct]) -> bytes:
    """Of the cipher: another one for each message that a side seals."""
    return (Promise, DaemonKey, Offer, Welcome).index(kind).to_bytes(12, "big")


def derive(spake: "SPAKE2_A | SPAKE2_B", start: Start, started: Started) -> Keys:
    """The keys of a conversation, on either end.

    Raises:
        PairingMessageError: the other end's message is no point of the group.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from spake2 import SPAKEError
    from spake2.ed25519_basic import NotOnCurve

    inbound = started.message if spake.side == b"A" else start.message
    try:
        key = spake.finish(inbound)
    except (SPAKEError, NotOnCurve, ValueError, AssertionError) as error:
        raise PairingMessageError(f"no SPAKE2 message: {type(error).__name__} {error}") from error
    # fields of fixed lengths but for the last
    said = start.message + started.message + start.password.encode()
    transcript = hashlib.sha256(PROTOCOL + b"\0" + said).digest()
    derived = HKDF(SHA256(), 128, salt=transcript, info=PROTOCOL).derive(key)
    prove_a, prove_b, seal_a, seal_b = (derived[n : n + 32] for n in range(0, 128, 32))
    return Keys(
        transcript,
        {"device": prove_a, "daemon": prove_b},
        {"device": seal_a, "daemon": seal_b},
    )
