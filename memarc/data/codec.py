"""Between rows of text and tokens: a tokenizer, the caps of a config, and the layout of texts.

Axes: G inputs, P tokens of a padded prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import prompts, tokenize
from memarc.data.config import DataConfig
from memarc.data.dataset import Dataset
from memarc.data.grammars import GRAMMARS
from memarc.data.prompts import Layout
from memarc.data.rows import Rows
from memarc.data.tasks import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """What texts are to be written of, and what texts are wanted.

    Attributes:
      inputs: G distinct inputs in their file's order.
      references: The texts that are wanted of each input.
      tokens: int32[G, P], the inputs' tokens with the separator, padded on the right.
      lengths: int32[G], the tokens of each prompt.
      is_cut: bool[G], whether the cap on prompts cut them.
    """

    inputs: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    tokens: np.ndarray
    lengths: np.ndarray
    is_cut: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """Turns rows into datasets, inputs into prompts, and tokens into texts.

    Attributes:
      tokenizer: The tokenizer itself.
      info: The tokenizer's size and special ids; public. Short rows are filled up with its
        ``pad_id``, which in generation is the token that ends a target.
      max_length: Cap on the tokens of a row.
      layout: The special tokens around the two texts of generation; None in classification.
      kind: One of ``memarc.batches.KINDS``.
    """

    tokenizer: tokenize.Tokenizer
    info: tokenize.TokenizerInfo
    max_length: int
    layout: Layout | None
    kind: str

    def dataset(self, rows: Rows, members: np.ndarray | None = None) -> Dataset:
        """Tokenizes rows.

        Args:
          rows: Rows of the codec's kind of task.
          members: The rows of each example, as of ``Dataset``; None makes each row an example.

        Returns:
          The dataset.

        Raises:
          ValueError: If the rows are not those of the kind of task, or the caps leave no room.
        """
        if self.layout is None:
            encoded = tokenize.encode(self.tokenizer, rows.columns, max_length=self.max_length)
        else:
            inputs, targets = rows.columns
            encoded = prompts.encode_pairs(
                self.tokenizer, inputs, targets, self.layout, max_length=self.max_length
            )
        return Dataset(encoded, rows.labels, members, self.info.pad_id, self.max_length)

    def prompts(
        self, inputs: Sequence[str], references: Sequence[Sequence[str]] | None = None
    ) -> Prompts:
        """Tokenizes inputs of which texts are to be written.

        Args:
          inputs: G texts.
          references: The texts that are wanted of each input; None where nothing is known of them.

        Returns:
          The prompts, with the ids that the inputs have in rows.

        Raises:
          ValueError: If the codec is of classification, or there are not as many ``references``.
        """
        wanted = [()] * len(inputs) if references is None else references
        if len(wanted) != len(inputs):
            raise ValueError(f"{len(inputs)} inputs and references of {len(wanted)}; make equal.")
        tokens, lengths, is_cut = prompts.encode_prompts(self.tokenizer, inputs, self._layout)
        return Prompts(tuple(inputs), tuple(map(tuple, wanted)), tokens, lengths, is_cut)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that the ids after a prompt spell, up to the first end."""
        return prompts.decode(self.tokenizer, ids, self._layout.end_id)

    @property
    def _layout(self) -> Layout:
        """The layout of generation; raises ValueError in classification."""
        if self.layout is None:
            raise ValueError(f"A codec of {self.kind} has no prompts; use one of generation.")
        return self.layout


def open_codec(task: Task, config: DataConfig) -> Codec:
    """Loads the tokenizer of a config and finds its special tokens.

    Args:
      task: The task's record.
      config: See ``config.check_fit``.

    Returns:
      The codec of the task's kind.

    Raises:
      ValueError: If no tokenizer is named, it cannot be read, or it lacks a special token.
    """
    if config.tokenizer is None:
        raise ValueError(
            "tokenizer is None, which stands for the tokenizer beside the model's weights; give "
            f"the folder or hub name of one, or {tokenize.WORD_LEVEL!r} for an embedded task."
        )
    if config.tokenizer == tokenize.WORD_LEVEL:
        tokenizer = GRAMMARS[task.name].tokenizer()
    else:
        needs_pad = task.kind == CLASSIFICATION
        tokenizer = tokenize.load_tokenizer(config.tokenizer, needs_pad=needs_pad)
    layout = _layout(tokenizer, config) if task.kind == GENERATION else None
    pad_id = None if layout is None else layout.end_id
    info = tokenize.describe(tokenizer, config.tokenizer, pad_id=pad_id)
    return Codec(tokenizer, info, config.max_length, layout, task.kind)


def _layout(tokenizer: tokenize.Tokenizer, config: DataConfig) -> Layout:
    """The special tokens around the texts of generation; ValueError if the tokenizer has none."""
    end = tokenizer.eos_token if config.end is None else config.end
    if end is None:
        raise ValueError(
            f"end is None, and tokenizer {config.tokenizer!r} names no token that ends a text; "
            f"choose one of {', '.join(tokenizer.all_special_tokens)}."
        )
    begin, separator = config.begin, end if config.separator is None else config.separator
    return Layout(
        max_prompt=config.prompt_cap,
        begin_id=None if begin is None else prompts.special_id(tokenizer, begin),
        separator_id=prompts.special_id(tokenizer, separator),
        end_id=prompts.special_id(tokenizer, end),
    )
