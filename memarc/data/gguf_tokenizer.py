"""Builds the tokenizer that a GGUF file describes; imports transformers where it is called.

The conversion is that of transformers, which takes GPT-2's way to cut text into words wherever it
does not know a vocabulary's own: those ways are put right here, or refused.
"""

from typing import Any

from memarc.gguf_header import Header

_ROLES = {  # Keyword of transformers -> key of a file.
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_BYTE_PAIRS, _SENTENCE_PIECES = "gpt2", "llama"

_AS_GPT2 = {"gpt-2", "mpt", "olmo", "jais"}
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}
_WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"}
"""Vocabularies that take a word which is a token as it is, merges or no, and begin every text."""

_NORMAL = 1  # The type of tokens that are neither special nor unused.


def build(header: Header) -> Any:
    """The tokenizer of a file.

    Args:
      header: The file's header.

    Returns:
      A fast tokenizer of transformers.

    Raises:
      ValueError: If the file holds no tokenizer, or one of a kind that is not known.
    """
    import transformers  # Slow.

    stated, tokens = header.metadata, header.value("tokenizer.ggml.tokens")
    backend = _backend(header)
    begins = (
        stated["tokenizer.ggml.model"] == _SENTENCE_PIECES
        or stated.get("tokenizer.ggml.pre") in _WHOLE_WORDS
    )
    ids = {role: stated.get(f"tokenizer.ggml.{key}") for role, key in _ROLES.items()}
    wrong = {role: x for role, x in ids.items() if x is not None and not 0 <= x < len(tokens)}
    if wrong:
        raise ValueError(
            f"The tokenizer in {header.file} is damaged: it has {len(tokens)} tokens, and {wrong}. "
            "Fetch the file again."
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=stated.get("tokenizer.ggml.add_bos_token", begins),
        add_eos_token=stated.get("tokenizer.ggml.add_eos_token", False),
        **{role: None if at is None else tokens[at] for role, at in ids.items()},
    )


def difference(header: Header, vocabulary: dict[str, int]) -> str | None:
    """Tells in which token another tokenizer differs from that of a file, None for none.

    Args:
      header: The file's header.
      vocabulary: Token -> id of the other tokenizer.
    """
    tokens = header.metadata.get("tokenizer.ggml.tokens", [])
    types = header.metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    for number, (token, kind) in enumerate(zip(tokens, types, strict=False)):
        written = token.replace(" ", "\u2581")  # As tokenizers of sentence pieces write spaces.
        if kind == _NORMAL and number not in (vocabulary.get(token), vocabulary.get(written)):
            return f"{token!r} is {number}, not {vocabulary.get(token)}"
    return None


def _conversion(header: Header) -> Any:
    """The module of transformers that turns what a file says into a tokenizer."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping
    except ImportError as error:
        raise ValueError(
            f"The tokenizer in {header.file} needs another transformers: pip install "
            "'memarc[gguf]'. Or name a folder with a tokenizer by data.tokenizer."
        ) from error
    return gguf_tokenizer_mapping


def _backend(header: Header) -> Any:
    """The tokenizer of the library `tokenizers`."""
    import tokenizers

    conversion, metadata = _conversion(header), header.metadata
    kind, words = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    known = _AS_GPT2 | _DIGITS_APART | _WHOLE_WORDS | set(conversion.GGUF_PRE_TOKENIZER_SPLITS)
    if kind not in (_BYTE_PAIRS, _SENTENCE_PIECES) or (kind == _BYTE_PAIRS and words not in known):
        raise ValueError(
            f"The tokenizer in {header.file} is of the kind {kind!r}, which cuts text into words "
            f"as {words!r} does; {_SENTENCE_PIECES!r}, and {_BYTE_PAIRS!r} with one of "
            f"{sorted(known)}, are read. Name a folder with the tokenizer by data.tokenizer."
        )
    stated = {
        word: metadata[f"tokenizer.{key}"]
        for key, word in conversion.GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{key}" in metadata
    }
    backend = conversion.convert_gguf_tokenizer(header.architecture, stated)[0]
    if words in _DIGITS_APART:
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Digits(individual_digits=True),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if words in _WHOLE_WORDS:
        backend.model.ignore_merges = True
    return backend
