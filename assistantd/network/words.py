"""Four words that people compare, for keys and tokens."""

from assistantd.protocol_pairing import pairing_words, words

__all__ = ["fingerprint", "pairing_words", "token_words", "words"]


def fingerprint(public_key: str) -> str:
    """The words of the daemon itself: of its public key (Z85)."""
    return words(public_key.encode())


def token_words(token: str) -> str:
    """The words of a browser or a program: of the token that it was given."""
    return words(token.encode())
