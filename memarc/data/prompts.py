"""Pairs of texts to token ids, ``begin prompt separator target end``, and ids back to a text.

The tokens of a prompt and of a target do not depend on each other, so a prompt alone has the ids
that it has in a row. A target is tokenized after a space, as byte-level vocabularies write a word
in a text; others drop the space.

Axes: N rows, M tokens of all rows, P tokens of a padded prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memarc.batches import INPUT_IDS, IS_TARGET
from memarc.data import tokenize


@dataclasses.dataclass(frozen=True)
class Layout:
    """The special tokens around a row's two texts, and the room of the first.

    Attributes:
      max_prompt: Cap on a row's tokens before its target, special ones included.
      begin_id: Id of the token that begins a row (see ``special_id``), which LLaMA was trained
        with; None writes none, as GPT-2 was.
      separator_id: Id between the texts.
      end_id: Id after the target; it may be the separator's.
    """

    max_prompt: int
    begin_id: int | None
    separator_id: int
    end_id: int

    def __post_init__(self) -> None:
        """Checks the cap."""
        _check_prompt_cap(self.max_prompt, self.begin_id is not None)

    @property
    def room(self) -> int:
        """Most tokens of an input."""
        return self.max_prompt - 1 - (self.begin_id is not None)

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """All before a target: an input too long loses tokens at its end, never the separator."""
        begin = [] if self.begin_id is None else [self.begin_id]
        return [*begin, *ids[: self.room], self.separator_id]


def encode_pairs(
    tokenizer: tokenize.Tokenizer,
    inputs: Sequence[str],
    targets: Sequence[str],
    layout: Layout,
    *,
    max_length: int,
) -> tokenize.Encoded:
    """Tokenizes rows for training.

    A row is ``layout``'s prompt of tokens(input), tokens(target), end; its ids depend on that row
    alone. A row too long loses tokens at its target's end, and has no end token then.

    Args:
      tokenizer: From ``tokenize``.
      inputs: N strings.
      targets: N strings.
      layout: What stands around them.
      max_length: Cap on the tokens of a row.

    Returns:
      The ids of all rows, and which of them belong to a target (its end does).

    Raises:
      ValueError: If there are not as many inputs as targets, or the caps leave no room.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets; make them equal.")
    check_caps(layout.max_prompt, max_length, layout.begin_id is not None)
    spaced = [f" {target}" for target in targets]
    rows, marks, truncated = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for prompt, target in zip(
        tokenize.plain_ids(tokenizer, inputs), tokenize.plain_ids(tokenizer, spaced), strict=True
    ):
        head = layout.prompt(prompt)
        row = [*head, *target, layout.end_id]
        truncated += len(prompt) > layout.room or len(row) > max_length
        rows.append(np.asarray(row[:max_length], np.int32))
        marks.append((np.arange(len(rows[-1])) >= len(head)).astype(np.int32))
    return tokenize.Encoded(
        tokens={INPUT_IDS: np.concatenate(rows), IS_TARGET: np.concatenate(marks)},
        offsets=np.cumsum([len(row) for row in rows], dtype=np.int64),
        truncated_rows=truncated,
    )


def encode_prompts(
    tokenizer: tokenize.Tokenizer, inputs: Sequence[str], layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokenizes inputs for decoding, as ``encode_pairs`` does.

    Args:
      tokenizer: From ``tokenize``.
      inputs: N strings.
      layout: What stands around them; its end fills up short prompts.

    Returns:
      int32[N, P], padded on the right; int32[N], their lengths with special tokens; and bool[N],
      whether the cap cut them.
    """
    prompts = np.full((len(inputs), layout.max_prompt), layout.end_id, np.int32)
    lengths, is_cut = np.zeros(len(inputs), np.int32), np.zeros(len(inputs), bool)
    for i, ids in enumerate(tokenize.plain_ids(tokenizer, inputs)):
        head = layout.prompt(ids)
        prompts[i, : len(head)] = head
        lengths[i], is_cut[i] = len(head), len(ids) > layout.room
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
            f"{token!r} cannot begin, separate or end texts: the tokenizer's special tokens for "
            f"that are {', '.join(known) or 'none'}; choose one of them."
        )
    return tokenizer.convert_tokens_to_ids(token)


def check_caps(max_prompt: int, max_length: int, begins: bool) -> None:
    """Raises ValueError unless a prompt has room for a token and a row for one of a target."""
    _check_prompt_cap(max_prompt, begins)
    if max_length <= max_prompt:
        raise ValueError(
            f"max_length is {max_length}, and a prompt alone may take max_prompt = {max_prompt}; "
            "leave room for a target."
        )


def _check_prompt_cap(max_prompt: int, begins: bool) -> None:
    special = "begin and separator" if begins else "the separator"
    if max_prompt < 2 + begins:
        raise ValueError(
            f"max_prompt is {max_prompt}; give at least {2 + begins}, one more than for {special}."
        )
