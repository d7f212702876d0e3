"""Strings to token ids; this file and `gguf_tokenizer` alone import transformers.

Vocabulary, special tokens and the length cap are public: they come from a published tokenizer,
from the grammar of the embedded task, or from the config, never from private rows.

Axes: N rows, M tokens of all rows.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memarc import gguf_header, paths
from memarc.batches import INPUT_IDS, TOKEN_TYPE_IDS
from memarc.data import gguf_tokenizer

WORD_LEVEL = "word_level"
"""Name that asks for the embedded task's own tokenizer instead of a folder or a hub name."""

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
"""A word-level tokenizer has them as ids 0 to 4, in this order."""

END_TOKEN = "[END]"
"""The token that ends a text that a model writes, where a word-level tokenizer is given one."""

_CHUNK_ROWS = 8192
"""Rows per call of the tokenizer; bounds the memory of its Python objects."""

Tokenizer = Any
"""A fast tokenizer of transformers (whose own type would make importing this file slow)."""


@dataclasses.dataclass(frozen=True)
class TokenizerInfo:
    """What models need to know of a tokenizer; all public.

    Attributes:
      name: Folder, hub name or ``WORD_LEVEL``.
      vocab_size: All ids, special ones included, are below it; some may stand for nothing.
      pad_id: Id that fills up short rows.
      mask_id: Id of the mask token, None where there is none.
      special_ids: All special ids, increasing.
    """

    name: str
    vocab_size: int
    pad_id: int
    mask_id: int | None
    special_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """Tokens of N rows, one row after the other.

    Attributes:
      tokens: Key of a batch (``memarc.batches``) -> int32[M]: "input_ids" first, then
        "token_type_ids" in classification or "is_target" in generation.
      offsets: int64[N + 1]; row i is ``offsets[i]:offsets[i + 1]``.
      truncated_rows: Number of rows that lost tokens to a cap. Private: counts rows.
    """

    tokens: Mapping[str, np.ndarray]
    offsets: np.ndarray
    truncated_rows: int


def load_tokenizer(name: str, *, needs_pad: bool = True) -> Tokenizer:
    """Loads a published tokenizer.

    Args:
      name: A local folder, a GGUF file, or a name on the hub (which needs a network or its cache).
      needs_pad: Whether a tokenizer without a pad token is refused.

    Returns:
      A fast tokenizer.

    Raises:
      ValueError: If it cannot be found or read, or lacks a fast version or a pad token it needs.
    """
    if gguf_header.is_file(name):
        tokenizer = gguf_tokenizer.build(gguf_header.read(name))
    else:
        tokenizer = _of_folder_or_hub(name)
    if not tokenizer.is_fast:
        raise ValueError(f"Tokenizer {name!r} has no fast version; choose one that has.")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ValueError(
            f"Tokenizer {name!r} has no vocabulary: its folder holds none of its files. Give one "
            "that has."
        )
    if needs_pad and tokenizer.pad_token_id is None:
        raise ValueError(f"Tokenizer {name!r} has no pad token; name one in its folder's config.")
    return tokenizer


def _of_folder_or_hub(name: str) -> Tokenizer:
    """A tokenizer as transformers finds it."""
    import transformers  # Slow, and not every user of this file needs it.

    folder = paths.place(name)
    is_local = folder.is_dir()
    if not is_local and (folder.is_absolute() or name.startswith((".", "~"))):
        raise ValueError(
            f"There is no tokenizer folder {folder}. Set tokenizer to a folder with "
            "tokenizer_config.json and its vocabulary, or to a hub name such as bert-base-uncased."
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder) if is_local else name, local_files_only=is_local
        )
    except (OSError, ValueError, KeyError) as error:
        place = "folder" if is_local else "hub name (no such folder exists)"
        raise ValueError(
            f"No tokenizer could be read from the {place} {name!r}: {error} Set tokenizer to a "
            "folder with tokenizer_config.json and its vocabulary, or to a hub name."
        ) from error


def word_level_tokenizer(words: Sequence[str], *, end_token: str | None = None) -> Tokenizer:
    """Builds a tokenizer that knows whole words split at spaces.

    Args:
      words: A public word list without repeats; word i gets id ``len(SPECIAL_TOKENS) + i``.
      end_token: A special token more, with the last id; None for none. See ``END_TOKEN``.

    Returns:
      A fast tokenizer writing ``[CLS] text [SEP]`` or ``[CLS] text [SEP] second [SEP]``.

    Raises:
      ValueError: If the words repeat or contain a special token.
    """
    import tokenizers
    import transformers  # Both slow, and only here needed.

    entries = [*SPECIAL_TOKENS, *words, *([end_token] if end_token else [])]
    vocab = {word: i for i, word in enumerate(entries)}
    if len(vocab) != len(entries):
        repeated = sorted({word for word in entries if entries.count(word) > 1})
        raise ValueError(f"The word list repeats {', '.join(repeated)}; give each word once.")
    pad, cls, sep, unk, mask = SPECIAL_TOKENS
    backend: Any = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token=unk))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        cls_token=cls,
        sep_token=sep,
        unk_token=unk,
        mask_token=mask,
        eos_token=end_token,
    )


def train_tokenizer(texts: Sequence[str], vocab_size: int, *, end_token: str) -> Tokenizer:
    """Learns byte-level pairs from public texts (never from private ones: words would tell).

    Args:
      texts: Public.
      vocab_size: Most ids, the 256 bytes and the end token among them.
      end_token: The one special token, id 0.

    Returns:
      A fast tokenizer.
    """
    import tokenizers
    import transformers  # Both slow, and only here needed.

    backend: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[end_token],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end_token)


def save_tokenizer(tokenizer: Tokenizer, folder: str) -> None:
    """Writes a folder that ``load_tokenizer`` reads back; makes it where needed."""
    tokenizer.save_pretrained(folder)


def describe(tokenizer: Tokenizer, name: str, *, pad_id: int | None = None) -> TokenizerInfo:
    """States what models need to know of ``tokenizer``, called ``name`` in the config.

    Args:
      tokenizer: From this file.
      name: What the config calls the tokenizer.
      pad_id: Id that fills up short rows; None is the tokenizer's own.
    """
    return TokenizerInfo(
        name=name,
        vocab_size=1 + max(tokenizer.get_vocab().values()),
        pad_id=tokenizer.pad_token_id if pad_id is None else pad_id,
        mask_id=tokenizer.mask_token_id,
        special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
    )


def encode(tokenizer: Tokenizer, columns: tuple[Sequence[str], ...], *, max_length: int) -> Encoded:
    """Tokenizes single texts or pairs of texts.

    A row's ids depend on that row alone. Rows over the cap lose tokens at the end of the longer
    text ("longest_first"), never a special token.

    Args:
      tokenizer: From this file.
      columns: One or two sequences of N strings; an empty string is legal.
      max_length: Cap on the tokens of a row, special tokens included.

    Returns:
      The ids of all rows.

    Raises:
      ValueError: If there are not one or two columns or the cap leaves no room for text.
    """
    if len(columns) not in (1, 2):
        raise ValueError(f"Got {len(columns)} text columns; a task has one or two.")
    special = tokenizer.num_special_tokens_to_add(pair=len(columns) == 2)
    if max_length <= special:
        raise ValueError(
            f"max_length is {max_length}, and special tokens alone take {special}; raise it."
        )
    ids, types, lengths, truncated = [], [], [], 0
    for start in range(0, len(columns[0]), _CHUNK_ROWS):
        chunk = [list(column[start : start + _CHUNK_ROWS]) for column in columns]
        # The encodings, unlike the dict of lists, tell which rows were cut.
        found = tokenizer(
            *chunk, truncation="longest_first", max_length=max_length, padding=False
        ).encodings
        lengths.extend(len(row) for row in found)
        truncated += sum(bool(row.overflowing) for row in found)
        ids.append(_flat(row.ids for row in found))
        types.append(_flat(row.type_ids for row in found))
    empty = np.zeros(0, np.int32)
    return Encoded(
        tokens={
            INPUT_IDS: np.concatenate([empty, *ids]),
            TOKEN_TYPE_IDS: np.concatenate([empty, *types]),
        },
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        truncated_rows=truncated,
    )


def plain_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yields the ids of each text, uncut and without special tokens, even where it spells one."""
    for start in range(0, len(texts), _CHUNK_ROWS):
        chunk = list(texts[start : start + _CHUNK_ROWS])
        # Not verbose: it would write the length of a long row to the console.
        yield from tokenizer(
            chunk, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]


def ids_around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special ids that a tokenizer itself writes before a text, and those behind it."""
    row = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, is_special = row["input_ids"], row["special_tokens_mask"]
    if 0 not in is_special:  # A vocabulary without the letter, and without an unknown token.
        return (), ()
    first, behind = is_special.index(0), is_special[::-1].index(0)
    return tuple(ids[:first]), tuple(ids[len(ids) - behind :])


def _flat(rows: Iterable[Sequence[int]]) -> np.ndarray:
    """The numbers of all rows, one row after the other, int32."""
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32)
