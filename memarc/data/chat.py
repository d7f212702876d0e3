"""Conversations to token ids, by a tokenizer's chat template; the assistant's turns are targets.

A template's special tokens stay special tokens. Of a conversation a model learns the assistant's
turns, each from after what the template writes to ask for it ("generation prompt") to the end of
what it writes of the turn.

Axes: N rows, P tokens of a padded prompt.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from memarc.batches import INPUT_IDS, IS_TARGET
from memarc.data import tokenize

Message = dict[str, Any]
"""A turn: "role", "content", and whatever else the template reads."""

_ASSISTANT = "assistant"


def conversation(value: Any) -> list[Message] | None:
    """The turns of a conversation, or None where a value is none.

    Args:
      value: A list of mappings with "role" and "content", or such a list as JSON.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return None
    if any(not isinstance(turn.get(key), str) for turn in value for key in ("role", "content")):
        return None
    return [{key: x for key, x in turn.items() if x is not None} for turn in value]


def ends_with_assistant(talk: Sequence[Message]) -> bool:
    """Whether the last turn is the assistant's, something said before it, and has a text."""
    return len(talk) > 1 and talk[-1]["role"] == _ASSISTANT and bool(talk[-1]["content"].strip())


def check(tokenizer: tokenize.Tokenizer, name: str) -> None:
    """Raises ValueError unless a tokenizer has a chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"Tokenizer {name!r} has no chat template; give one of an instruct model, or name "
            "data.text and data.target instead of data.messages."
        )


def encode(
    tokenizer: tokenize.Tokenizer,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    max_length: int,
) -> tokenize.Encoded:
    """Tokenizes conversations for training; a row's ids depend on that row alone.

    Args:
      tokenizer: From ``tokenize``, with a chat template.
      prompts: N conversations as JSON, all but their last turns.
      answers: N texts, the assistant's last turns.
      max_length: Cap on the tokens of a row; a row too long loses tokens at its end.

    Returns:
      The ids of all rows, and which of them the assistant says.

    Raises:
      ValueError: If the template writes earlier turns otherwise once later ones follow.
    """
    rows, marks, truncated = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for prompt, answer in zip(prompts, answers, strict=True):
        talk = [*json.loads(prompt), {"role": _ASSISTANT, "content": answer}]
        text, spans = _written(tokenizer, talk)
        found = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts = np.asarray([start for start, _ in found["offset_mapping"]], np.int64)
        is_said = np.zeros(len(starts), bool)
        for begin, end in spans:
            is_said |= (starts >= begin) & (starts < end)
        truncated += len(starts) > max_length
        rows.append(np.asarray(found["input_ids"][:max_length], np.int32))
        marks.append(is_said[:max_length].astype(np.int32))
    return tokenize.Encoded(
        tokens={INPUT_IDS: np.concatenate(rows), IS_TARGET: np.concatenate(marks)},
        offsets=np.cumsum([len(row) for row in rows], dtype=np.int64),
        truncated_rows=truncated,
    )


def encode_prompts(
    tokenizer: tokenize.Tokenizer, prompts: Sequence[str], *, max_prompt: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokenizes conversations that the assistant is to go on with.

    Args:
      tokenizer: From ``tokenize``, with a chat template.
      prompts: N conversations as JSON.
      max_prompt: P; a longer prompt loses tokens at its beginning.
      pad_id: Fills up short prompts.

    Returns:
      int32[N, P], padded on the right; int32[N], their lengths; and bool[N], whether the cap cut
      them.
    """
    tokens = np.full((len(prompts), max_prompt), pad_id, np.int32)
    lengths, is_cut = np.zeros(len(prompts), np.int32), np.zeros(len(prompts), bool)
    for i, prompt in enumerate(prompts):
        text = _render(tokenizer, json.loads(prompt), is_asked=True)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        kept = ids[-max_prompt:]
        tokens[i, : len(kept)] = kept
        lengths[i], is_cut[i] = len(kept), len(ids) > max_prompt
    return tokens, lengths, is_cut


def _written(
    tokenizer: tokenize.Tokenizer, talk: list[Message]
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as the template writes it, and where in it the assistant speaks."""
    whole, spans = _render(tokenizer, talk, is_asked=False), []
    for i, turn in enumerate(talk):
        if turn["role"] != _ASSISTANT:
            continue
        before = _render(tokenizer, talk[:i], is_asked=True)
        upto = _render(tokenizer, talk[: i + 1], is_asked=False)
        if not upto.startswith(before) or not whole.startswith(upto):
            raise ValueError(
                "The tokenizer's chat template writes a turn otherwise where later ones follow, so "
                "it cannot be told which tokens the assistant says; cut conversations into single "
                "questions and answers."
            )
        spans.append((len(before), len(upto)))
    return whole, spans


def _render(tokenizer: tokenize.Tokenizer, talk: list[Message], *, is_asked: bool) -> str:
    """The text of a conversation; ``is_asked`` adds what asks the assistant to speak."""
    if not talk:
        raise ValueError("A conversation begins with the assistant; let somebody speak before.")
    try:
        return tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=is_asked)
    except Exception as error:  # A template raises what it likes, and may quote the text.
        raise ValueError(
            "The tokenizer's chat template refuses a conversation "
            f"({type(error).__name__}): roles may have to alternate, or one be unknown to it."
        ) from None
