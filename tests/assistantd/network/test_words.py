"""Words that people compare."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from assistantd.network import words
from assistantd.protocol_pairing import DaemonKey, Offer


def test_four_words_of_the_list() -> None:
    assert words.words(b"abc") == "risk scheme quiz bulk"
    # BIP39 itself takes eleven bits a word from the start, too
    digest = hashlib.sha256(b"abc").digest()
    assert Mnemonic("english").to_mnemonic(digest[:16]).startswith("risk scheme quiz bulk ")


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_other_data_has_other_words(one: bytes, other: bytes) -> None:
    assert len(words.words(one).split()) == 4
    assert (words.words(one) == words.words(other)) == (one == other)


def test_all_that_both_ends_said_counts() -> None:
    daemon = DaemonKey(server_key="a" * 40, nonce=bytes(32))
    offer = Offer(public_key="b" * 40, name="x", nonce=bytes(32))
    found = {
        words.pairing_words(daemon, offer),
        words.pairing_words(DaemonKey(server_key="c" * 40, nonce=bytes(32)), offer),
        words.pairing_words(DaemonKey(server_key="a" * 40, nonce=b"1" * 32), offer),
        words.pairing_words(daemon, Offer(public_key="c" * 40, name="x", nonce=bytes(32))),
        words.pairing_words(daemon, Offer(public_key="b" * 40, name="x", nonce=b"1" * 32)),
    }
    assert len(found) == 5


def test_fingerprints_and_tokens() -> None:
    assert words.fingerprint("a" * 40) != words.fingerprint("b" * 40)
    assert words.token_words("x") == words.words(b"x")
