"""Builds the tokenizer that a GGUF file describes; imports transformers where it is called.

Sentence pieces are converted by transformers. So would byte pairs be, but its conversion adds a
token, and takes GPT-2's way to cut text into words wherever it does not know a vocabulary's own.
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
_NORMAL, _CONTROL, _OF_USER = 1, 3, 4  # Types of tokens; the last two are found in text first.

_AS_GPT2 = {"gpt-2", "mpt", "olmo", "jais"}
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}
_WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"}
"""Vocabularies that take a word which is a token as it is, merges or no, and begin every text."""


def build(header: Header) -> Any:
    """The tokenizer of a file.

    Args:
      header: The file's header.

    Returns:
      A fast tokenizer of transformers, of as many ids as the file has tokens.

    Raises:
      ValueError: If the file holds no tokenizer, or one of a kind that is not known.
    """
    import transformers  # Slow.

    stated, tokens = header.metadata, header.value("tokenizer.ggml.tokens")
    kind, words = stated.get("tokenizer.ggml.model"), stated.get("tokenizer.ggml.pre")
    if kind == _BYTE_PAIRS:
        backend = _byte_pairs(header, words)
    elif kind == _SENTENCE_PIECES:
        backend = _sentence_pieces(header)
    else:
        raise ValueError(
            f"The tokenizer in {header.file} is of the kind {kind!r}; {_BYTE_PAIRS!r} and "
            f"{_SENTENCE_PIECES!r} are read. Name a folder with the tokenizer by data.tokenizer."
        )
    ids = {role: stated.get(f"tokenizer.ggml.{key}") for role, key in _ROLES.items()}
    wrong = {role: x for role, x in ids.items() if x is not None and not 0 <= x < len(tokens)}
    if wrong or backend.get_vocab_size() != len(tokens):
        raise ValueError(
            f"The tokenizer in {header.file} is damaged: it has {len(tokens)} tokens, of which "
            f"{backend.get_vocab_size()} differ, and {wrong}. Fetch the file again."
        )
    begins = kind == _SENTENCE_PIECES or words in _WHOLE_WORDS
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=stated.get("tokenizer.ggml.add_bos_token", begins),
        add_eos_token=stated.get("tokenizer.ggml.add_eos_token", False),
        chat_template=stated.get("tokenizer.chat_template"),
        **{role: None if at is None else tokens[at] for role, at in ids.items()},
    )


def difference(header: Header, vocabulary: dict[str, int]) -> str | None:
    """Tells in which token another tokenizer differs from that of a file, None for none.

    Args:
      header: The file's header.
      vocabulary: Token -> id of the other tokenizer.
    """
    for number, (token, kind) in enumerate(_typed_tokens(header)):
        written = token.replace(" ", "\u2581")  # As tokenizers of sentence pieces write spaces.
        if kind == _NORMAL and number not in (vocabulary.get(token), vocabulary.get(written)):
            return f"{token!r} is {number}, not {vocabulary.get(token)}"
    return None


def _typed_tokens(header: Header) -> list[tuple[str, int]]:
    """Every token with its type."""
    tokens = header.metadata.get("tokenizer.ggml.tokens", [])
    types = header.metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    return list(zip(tokens, types, strict=False))


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


def _sentence_pieces(header: Header) -> Any:
    """A tokenizer of the library `tokenizers`, as transformers converts it."""
    conversion, metadata = _conversion(header), header.metadata
    stated = {
        word: metadata[f"tokenizer.{key}"]
        for key, word in conversion.GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{key}" in metadata
    }
    return conversion.convert_gguf_tokenizer(header.architecture, stated)[0]


def _byte_pairs(header: Header, words: str | None) -> Any:
    """A tokenizer of the library `tokenizers` that cuts text into words as ``words`` names."""
    import tokenizers

    typed = _typed_tokens(header)
    merges: Any = [tuple(pair.split(" ")) for pair in header.value("tokenizer.ggml.merges")]
    backend: Any = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {token: number for number, (token, _) in enumerate(typed)},
            merges,
            ignore_merges=words in _WHOLE_WORDS,
        )
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(_steps(header, words))
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_tokens(
        [
            tokenizers.AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, kind in typed
            if kind in (_CONTROL, _OF_USER)
        ]
    )
    return backend


def _steps(header: Header, words: str | None) -> list[Any]:
    """The steps that cut text into words of bytes."""
    import tokenizers
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Split

    regexes = _conversion(header).GGUF_PRE_TOKENIZER_SPLITS
    if words in regexes:
        regex = tokenizers.Regex(regexes[words])
        return [Split(regex, "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    as_gpt2 = ByteLevel(add_prefix_space=False)
    if words in _DIGITS_APART:
        return [Digits(individual_digits=True), as_gpt2]
    if words in _AS_GPT2:
        return [as_gpt2]
    raise ValueError(
        f"The tokenizer in {header.file} cuts text into words as {words!r} does, which is not "
        f"known; {sorted(_AS_GPT2 | _DIGITS_APART | set(regexes))} are. Name a folder with the "
        "tokenizer by data.tokenizer."
    )
