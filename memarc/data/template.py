"""Text around the columns of a row, such as "Review: {sentence} It was", for a decoder to go on.

In "{sentence} It was <mask>." an encoder fills the gap instead, as it was pre-trained to.

Axes: N rows.
"""

import string
from collections.abc import Sequence

import numpy as np

from memarc.batches import INPUT_IDS, TOKEN_TYPE_IDS
from memarc.data import tokenize

MASK = "<mask>"
"""What stands in a template for the mask token, however the tokenizer spells it."""

Pieces = tuple[str | int, ...]
"""Literal texts, and the numbers of columns between them."""


def parse(template: str, fields: Sequence[str]) -> Pieces:
    """Cuts a template where the columns stand.

    Args:
      template: Text with columns in braces; "{{" and "}}" stand for braces.
      fields: Names of the columns that rows have.

    Returns:
      The pieces, in their order.

    Raises:
      ValueError: If the template names no column, an unknown one, or one twice.

    >>> parse("Review: {sentence} It was", ["sentence"])
    ('Review: ', 0, ' It was')
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r} cannot be read: {error}.") from error
    named = [name for _, name, _, _ in parsed if name is not None]
    if not named or len(set(named)) < len(named) or not set(named) <= set(fields):
        raise ValueError(
            f"template {template!r} names {named}; name columns in braces, once each: "
            f"{', '.join(fields)}."
        )
    pieces: list[str | int] = []
    for text, name, _, _ in parsed:
        pieces += [text] if text else []
        pieces += [list(fields).index(name)] if name is not None else []
    return tuple(pieces)


def fill(pieces: Pieces, texts: Sequence[str]) -> str:
    """The text of one row: its columns between the template's pieces.

    >>> fill(("Q: ", 0, " A:"), ["why?"])
    'Q: why? A:'
    """
    return "".join(piece if isinstance(piece, str) else texts[piece] for piece in pieces)


def encode(
    tokenizer: tokenize.Tokenizer,
    columns: Sequence[Sequence[str]],
    pieces: Pieces,
    *,
    begin: Sequence[int],
    end: Sequence[int] = (),
    max_length: int,
) -> tokenize.Encoded:
    """Tokenizes the texts of rows and what stands around them, each by itself.

    A row's ids depend on that row alone. A row too long loses tokens at the end of its longest
    column, never of the template. `MASK` is the tokenizer's mask token in the template, and plain
    text in a column: a row with a mask has one.

    Args:
      tokenizer: From ``tokenize``; it must have a mask token if the template has `MASK`.
      columns: Sequences of N strings.
      pieces: From `parse`.
      begin: The ids that begin all rows.
      end: The ids that end all rows.
      max_length: Cap on the tokens of a row.

    Returns:
      The ids of all rows; all token types are 0.

    Raises:
      ValueError: If a column of the template is missing, or the cap leaves no room for a text.
    """
    used = [piece for piece in pieces if isinstance(piece, int)]
    if max(used) >= len(columns):
        raise ValueError(f"The template reads {max(used) + 1} columns; rows have {len(columns)}.")
    literal = {x: _literal_ids(tokenizer, x) for x in pieces if isinstance(x, str)}
    taken = sum(len(literal[piece]) for piece in pieces if isinstance(piece, str))
    room = max_length - len(begin) - len(end) - taken
    if room < len(used):
        raise ValueError(
            f"max_length is {max_length}, of which the template takes {max_length - room}; raise "
            "it, so that there is room for texts."
        )
    # A vocabulary of whole words may have the mask's spelling among them.
    left_out = tokenizer.mask_token_id if any(MASK in x for x in literal) else None
    rows, truncated = [], 0
    for texts in zip(*(tokenize.plain_ids(tokenizer, columns[i]) for i in used), strict=True):
        if left_out is not None:
            texts = [[i for i in text if i != left_out] for text in texts]
        kept = _fit([len(text) for text in texts], room)
        truncated += sum(kept) < sum(map(len, texts))
        cut = dict(zip(used, (text[:n] for text, n in zip(texts, kept, strict=True)), strict=True))
        row = [*begin]
        for piece in pieces:
            row += literal[piece] if isinstance(piece, str) else cut[piece]
        rows.append(np.asarray([*row, *end], np.int32))
    ids = np.concatenate([np.zeros(0, np.int32), *rows])
    return tokenize.Encoded(
        tokens={INPUT_IDS: ids, TOKEN_TYPE_IDS: np.zeros_like(ids)},
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        truncated_rows=truncated,
    )


def _literal_ids(tokenizer: tokenize.Tokenizer, text: str) -> list[int]:
    """The ids of a piece of a template; the tokenizer says what its mask does to a space before."""
    if MASK not in text:
        return next(tokenize.plain_ids(tokenizer, [text]))
    spelled = text.replace(MASK, tokenizer.mask_token)
    return tokenizer(spelled, add_special_tokens=False, verbose=False)["input_ids"]


def _fit(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths that fit into the room, where the longest is cut first; of equal ones the last."""
    kept = list(lengths)
    while sum(kept) > room:
        longest = len(kept) - 1 - kept[::-1].index(max(kept))
        others = [n for i, n in enumerate(kept) if i != longest]
        least = max([*others, 0]) - 1  # It stays the longest down to here.
        kept[longest] = max(room - sum(others), min(least, kept[longest] - 1), 0)
    return kept
