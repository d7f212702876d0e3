"""Between rows of text and tokens: a tokenizer, the caps of a config, and the layout of texts.

Axes: G inputs, P tokens of a padded prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memarc.batches import GENERATION
from memarc.data import chat, prompts, template, tokenize
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
      pieces: The template around the columns of classification; () leaves it to the tokenizer.
      around: The ids that begin and those that end a row with a template.
      kind: One of ``memarc.batches.KINDS``.
      is_chat: Whether inputs are conversations as JSON, which the tokenizer's chat template writes
        out (`memarc.data.chat`).
    """

    tokenizer: tokenize.Tokenizer
    info: tokenize.TokenizerInfo
    max_length: int
    layout: Layout | None
    kind: str
    pieces: template.Pieces = ()
    around: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    is_chat: bool = False

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
        if self.is_chat:
            talks, answers = rows.columns
            encoded = chat.encode(self.tokenizer, talks, answers, max_length=self.max_length)
        elif self.pieces:
            encoded = template.encode(
                self.tokenizer,
                rows.columns,
                self.pieces,
                begin=self.around[0],
                end=self.around[1],
                max_length=self.max_length,
            )
        elif self.layout is None:
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
          inputs: G texts, or G conversations as JSON.
          references: The texts that are wanted of each input; None where nothing is known of them.

        Returns:
          The prompts, with the ids that the inputs have in rows.

        Raises:
          ValueError: If the codec is of classification, or there are not as many ``references``.
        """
        wanted = [()] * len(inputs) if references is None else references
        if len(wanted) != len(inputs):
            raise ValueError(f"{len(inputs)} inputs and references of {len(wanted)}; make equal.")
        if self.is_chat:
            given = {"max_prompt": self._layout.max_prompt, "pad_id": self._layout.end_id}
            tokens, lengths, is_cut = chat.encode_prompts(self.tokenizer, inputs, **given)
        else:
            tokens, lengths, is_cut = prompts.encode_prompts(self.tokenizer, inputs, self._layout)
        return Prompts(tuple(inputs), tuple(map(tuple, wanted)), tokens, lengths, is_cut)

    def label_ids(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The ids of words that stand for labels, as they follow a template.

        Raises:
          ValueError: If a word has no token or is unknown, or two are the same.
        """
        ids = tuple(map(tuple, tokenize.plain_ids(self.tokenizer, words)))
        unknown = [
            word
            for word, its in zip(words, ids, strict=True)
            if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in its
        ]
        if unknown:
            raise ValueError(
                f"head.words has {unknown}, of which tokenizer {self.info.name!r} knows no tokens; "
                "choose words that its vocabulary has."
            )
        if () in ids or len(set(ids)) < len(words):
            raise ValueError(
                f"head.words is {tuple(words)}, tokens {ids}; give each label words of its own "
                "(with the space before them, as they follow the template)."
            )
        return ids

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
        # A row with a template is a decoder's, which reads nothing of what fills it up.
        needs_pad = task.kind != GENERATION and config.template is None
        tokenizer = tokenize.load_tokenizer(config.tokenizer, needs_pad=needs_pad)
    layout = _layout(tokenizer, config) if task.kind == GENERATION else None
    pad_id = _pad_id(tokenizer, layout)
    info = tokenize.describe(tokenizer, config.tokenizer, pad_id=pad_id)
    if config.messages is not None:
        chat.check(tokenizer, config.tokenizer)
        return Codec(tokenizer, info, config.max_length, layout, task.kind, is_chat=True)
    if config.template is None or task.kind == GENERATION:  # There it has made the prompts.
        return Codec(tokenizer, info, config.max_length, layout, task.kind)
    pieces = template.parse(config.template, task.text_fields)
    around = _around(tokenizer, config)
    return Codec(tokenizer, info, config.max_length, layout, task.kind, pieces, around)


def _pad_id(tokenizer: tokenize.Tokenizer, layout: Layout | None) -> int | None:
    """The id that fills up short rows, if it is not the tokenizer's own."""
    if layout is not None:
        return layout.end_id
    return 0 if tokenizer.pad_token_id is None else None


def _around(
    tokenizer: tokenize.Tokenizer, config: DataConfig
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What begins and ends rows with a template; with a mask, what the tokenizer itself writes."""
    if not config.has_mask:
        begin = _begin_id(tokenizer, config)
        return (() if begin is None else (begin,)), ()
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"template {config.template!r} has a mask, and tokenizer {config.tokenizer!r} has no "
            "mask token: its model was not trained to fill one. Give a masked-language model."
        )
    return tokenize.ids_around(tokenizer)


def _begin_id(tokenizer: tokenize.Tokenizer, config: DataConfig) -> int | None:
    """The id that begins rows; ValueError if the tokenizer writes one and the config none."""
    if config.begin is not None:
        return prompts.special_id(tokenizer, config.begin)
    first, own = tokenizer.bos_token_id, tokenizer("a", verbose=False)["input_ids"]
    if first is not None and own[0] == first:
        raise ValueError(
            f"begin is None, and tokenizer {config.tokenizer!r} begins rows with "
            f"{tokenizer.bos_token!r}, which its model was trained to read first; set begin to it."
        )
    return None


def _layout(tokenizer: tokenize.Tokenizer, config: DataConfig) -> Layout:
    """The special tokens around the texts of generation; ValueError if the tokenizer has none."""
    end = tokenizer.eos_token if config.end is None else config.end
    if end is None:
        raise ValueError(
            f"end is None, and tokenizer {config.tokenizer!r} names no token that ends a text; "
            f"choose one of {', '.join(tokenizer.all_special_tokens)}."
        )
    separator = end if config.separator is None else config.separator
    return Layout(
        max_prompt=config.prompt_cap,
        begin_id=None if config.messages else _begin_id(tokenizer, config),
        separator_id=prompts.special_id(tokenizer, separator),
        end_id=prompts.special_id(tokenizer, end),
    )
