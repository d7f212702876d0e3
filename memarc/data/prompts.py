"""Pairs of texts to token ids, ``prompt separator target end``, and ids back to a text.

The tokens of a prompt and of a target do not depend on each other, so a prompt alone has the ids
that it has in a row. A target is tokenized after a space, as byte-level vocabularies write a word
in a text; others drop the space.

Axes: N rows, M tokens of all rows, P tokens of a padded prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memarc.data import tokenize


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Token ids of N rows, one after the other.

    Attributes:
      input_ids: int32[M].
      offsets: int64[N + 1]; row i is ``offsets[i]:offsets[i + 1]``.
      prompt_lengths: int32[N]: a row's tokens before its target, the separator included.
      truncated_rows: Number of rows that lost tokens to a cap. Private: counts rows.
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    prompt_lengths: np.ndarray
    truncated_rows: int


def encode_pairs(
    tokenizer: tokenize.Tokenizer,
    inputs: Sequence[str],
    targets: Sequence[str],
    *,
    max_prompt: int,
    max_length: int,
    separator_id: int,
    end_id: int,
) -> EncodedPairs:
    """Tokenizes rows for training.

    A row is tokens(input), separator, tokens(target), end; its ids depend on that row alone. An
    input too long loses tokens at its end, never the separator. A row too long loses tokens at its
    target's end, and has no end token then.

    Args:
      tokenizer: From ``tokenize``.
      inputs: N strings.
      targets: N strings.
      max_prompt: Cap on the tokens of input and separator.
      max_length: Cap on the tokens of a row.
      separator_id: See ``special_id``.
      end_id: Likewise; it may be the same.

    Returns:
      The ids of all rows.

    Raises:
      ValueError: If there are not as many inputs as targets, or the caps leave no room.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets; make them equal.")
    check_caps(max_prompt, max_length)
    spaced = [f" {target}" for target in targets]
    rows, prompt_lengths, truncated = [np.zeros(0, np.int32)], [], 0
    for prompt, target in zip(
        tokenize.plain_ids(tokenizer, inputs), tokenize.plain_ids(tokenizer, spaced), strict=True
    ):
        head = [*prompt[: max_prompt - 1], separator_id]
        row = [*head, *target, end_id]
        truncated += len(prompt) >= max_prompt or len(row) > max_length
        rows.append(np.asarray(row[:max_length], np.int32))
        prompt_lengths.append(len(head))
    return EncodedPairs(
        input_ids=np.concatenate(rows),
        offsets=np.cumsum([len(row) for row in rows], dtype=np.int64),
        prompt_lengths=np.asarray(prompt_lengths, np.int32),
        truncated_rows=truncated,
    )


def encode_prompts(
    tokenizer: tokenize.Tokenizer,
    inputs: Sequence[str],
    *,
    max_prompt: int,
    separator_id: int,
    end_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokenizes inputs for decoding, as ``encode_pairs`` does.

    Args:
      tokenizer: From ``tokenize``.
      inputs: N strings.
      max_prompt: P, cap on the tokens of input and separator.
      separator_id: See ``special_id``.
      end_id: Fills up short prompts.

    Returns:
      int32[N, P], padded on the right; int32[N], their lengths with the separator; and bool[N],
      whether the cap cut them.

    Raises:
      ValueError: If the cap leaves no room.
    """
    _check_prompt_cap(max_prompt)
    prompts = np.full((len(inputs), max_prompt), end_id, np.int32)
    lengths, is_cut = np.zeros(len(inputs), np.int32), np.zeros(len(inputs), bool)
    for i, ids in enumerate(tokenize.plain_ids(tokenizer, inputs)):
        head = [*ids[: max_prompt - 1], separator_id]
        prompts[i, : len(head)] = head
        lengths[i], is_cut[i] = len(head), len(ids) >= max_prompt
    return prompts, lengths, is_cut


def decode(tokenizer: tokenize.Tokenizer, ids: Sequence[int] | np.ndarray, end_id: int) -> str:
    """The text of a target: what is before the first end, without special tokens and outer spaces.

    Args:
      tokenizer: From ``tokenize``.
      ids: int[T], without the prompt; what follows an end is ignored.
      end_id: See ``special_id``.
    """
    words = [int(i) for i in ids]
    if end_id in words:
        words = words[: words.index(end_id)]
    text = tokenizer.decode(words, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def special_id(tokenizer: tokenize.Tokenizer, token: str) -> int:
    """Finds the id of a special token by its text.

    Args:
      tokenizer: From ``tokenize``.
      token: Such as "[SEP]" or "<|endoftext|>".

    Returns:
      Its id.

    Raises:
      ValueError: If the tokenizer has no such special token, or unknown words have the same id.
    """
    # A byte-level tokenizer knows every word; GPT-2's names its end as the unknown token too.
    unknown = {tokenizer.unk_token} - {tokenizer.eos_token}
    known = [special for special in tokenizer.all_special_tokens if special not in unknown]
    if token not in known:
        raise ValueError(
            f"{token!r} cannot separate or end texts: the tokenizer's special tokens for that are "
            f"{', '.join(known) or 'none'}; choose one of them."
        )
    return tokenizer.convert_tokens_to_ids(token)


def check_caps(max_prompt: int, max_length: int) -> None:
    """Raises ValueError unless a prompt has room for a token and a row for one of a target."""
    _check_prompt_cap(max_prompt)
    if max_length <= max_prompt:
        raise ValueError(
            f"max_length is {max_length}, and a prompt alone may take max_prompt = {max_prompt}; "
            "leave room for a target."
        )


def _check_prompt_cap(max_prompt):
    if max_prompt < 2:
        raise ValueError(f"max_prompt is {max_prompt}; give at least 2, one for the separator.")
