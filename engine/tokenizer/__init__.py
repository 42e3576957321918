"""Tokenizers for the vocabularies of LLaMA models: pick the right one for a file.

Owns: the choice. Leaves to others: the keys (vocab.py), byte-level BPE (bpe.py, pretokenizers.py),
SentencePiece (spm.py), special tokens (special.py), decoding and streams (base.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UnsupportedModelError
from engine.tokenizer.base import StreamDecoder, Tokenizer
from engine.tokenizer.special import MARKER, protect, unprotect
from engine.tokenizer.vocab import PREFIX, Keys, short

__all__ = [
    "MARKER",
    "StreamDecoder",
    "Tokenizer",
    "load_sentencepiece",
    "load_tokenizer",
    "protect",
    "unprotect",
]


def load_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF's metadata describes. Nothing of `metadata` is kept.

    Raises:
        ModelFormatError: a key is missing or wrong; the message names it and its value.
        UnsupportedModelError: a kind of tokenizer or pre-tokenizer that is not implemented.
    """
    model = Keys(metadata).string("model")
    # imports are here so that each kind costs only what it needs
    if model == "llama":
        from engine.tokenizer.spm import SpmTokenizer

        return SpmTokenizer.from_metadata(metadata)
    if model == "gpt2":
        from engine.tokenizer.bpe import BpeTokenizer

        return BpeTokenizer.from_metadata(metadata)
    if model is None:
        raise Keys(metadata).bad("model", "is missing")
    raise UnsupportedModelError(
        f"{PREFIX}model is {short(model)}; supported are 'llama' (SentencePiece) and "
        "'gpt2' (byte-level BPE)"
    )


def load_sentencepiece(path: Path | str) -> Tokenizer:
    """The tokenizer in a SentencePiece `tokenizer.model`.

    Raises:
        ModelFormatError: the file cannot be read, or is not a SentencePiece model.
    """
    from engine.tokenizer.spm import SpmTokenizer

    return SpmTokenizer.from_file(Path(path))
