"""The rows of canaries: of random tokens, of unused ones, samples of the model, and gradient ones.

All are public; only their coins are not. Texts of unused tokens follow Panda et al. 2025, Privacy
Auditing of Large Language Models, arXiv:2503.06808: no other row touches what they move. A
classifier reads the tokens and learns a random label; a language model learns to write them after
an input of an evaluation set.

Axes: M canaries of a kind, L tokens of a text.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from memarc.batches import GENERATION, INPUT_IDS
from memarc.data import public_text
from memarc.data.codec import Codec, Prompts
from memarc.data.dataset import Dataset
from memarc.data.tokenize import Encoded
from memarc.evaluation import decode
from memarc.evaluation.decoding import DecodingConfig
from memarc.models.language import LanguageModel
from memarc.runs.canaries import GRADIENT, SAMPLED, UNUSED, Slots, mark_of
from memarc.runs.generation import decoder_of
from memarc.runs.parts import Run

TEMPERATURE = 2.0
"""The temperature of the model's own samples: high, so that it would hardly write them."""

_MOST_TOKENS = 16
"""A canary is at most so long (L)."""

Row = tuple[np.ndarray, np.ndarray]
"""Ids of a row's tokens, int32[T], and the other array of its kind of task, int32[T]."""


def with_canaries(run: Run, slots: Slots) -> Dataset:
    """The train set of a run and all canaries.

    Raises:
      ValueError: If rows are grouped, the tokenizer has too few unused tokens, or the model of a
        "sampled" canary does not write.
    """
    train = run.splits.train
    if train.members is not None:
        raise ValueError(
            "An audit takes one row an example; give data.unit='row' and no data.user."
        )
    rng = np.random.default_rng(0)
    rows = [row for kind in slots.counts for row in _rows(run, kind, slots.counts[kind], rng)]
    labels = None
    if train.labels is not None:
        classes = len(run.settings.record_of_task.labels)
        drawn = rng.integers(classes, size=slots.total - slots.rows)
        drawn[slots.of(GRADIENT) - slots.rows] = mark_of(np.arange(slots.counts[GRADIENT]), classes)
        labels = np.concatenate([train.labels, drawn.astype(train.labels.dtype)])
    encoded = _extended(train.encoded, rows)
    return Dataset(encoded, labels, None, train.pad_id, train.max_length)


def unused_ids(codec: Codec) -> np.ndarray:
    """Ids that rows of text do not hold: special tokens, and pieces that no text is cut into.

    Tokens that rows begin, part or end with are left out, as is that which fills up rows.
    """
    tokenizer, info = codec.tokenizer, codec.info
    found = set(info.special_ids)
    for number in range(info.vocab_size):
        text = tokenizer.decode([number])
        if tokenizer.encode(text, add_special_tokens=False) != [number]:
            found.add(number)
    sentences = public_text.batch(codec, codec.max_length)[INPUT_IDS]
    return np.array(sorted(found - set(sentences.ravel().tolist()) - {info.pad_id}), np.int32)


def _rows(run: Run, kind: str, count: int, rng: np.random.Generator) -> Sequence[Row]:
    """The rows of a kind."""
    if kind == GRADIENT:
        mark = np.zeros(1, np.int32)
        if run.splits.train.labels is not None:
            return [(mark, mark)] * count
        return [(mark, mark_of(mark + number, 0)) for number in range(count)]
    if kind == SAMPLED:
        return _sampled(run, count, rng)
    ids = unused_ids(run.codec) if kind == UNUSED else _words(run.codec)
    if len(ids) < 2:
        raise ValueError(
            f"Tokenizer {run.codec.info.name!r} has {len(ids)} tokens that no row holds; leave "
            f"{UNUSED} canaries out: audit.{UNUSED}_canaries=0."
        )
    return _of_tokens(run, rng.choice(ids, (count, _length(run))).astype(np.int32), rng)


def _of_tokens(run: Run, texts: np.ndarray, rng: np.random.Generator) -> Sequence[Row]:
    """Rows of texts [M, L]: alone, or to be written after an input."""
    if run.settings.kind != GENERATION:
        return [(text, np.zeros_like(text)) for text in texts]
    prompts = _prompts(run)
    chosen = rng.integers(len(prompts.inputs), size=len(texts))
    return [_row_of(prompts, number, text) for number, text in zip(chosen, texts, strict=True)]


def _sampled(run: Run, count: int, rng: np.random.Generator) -> Sequence[Row]:
    """Rows that the model wrote before it was trained, at `TEMPERATURE`."""
    model, layout = run.model, run.codec.layout
    if not isinstance(model, LanguageModel) or layout is None:
        raise ValueError(
            f"A model of {run.settings.kind} does not write; give audit.{SAMPLED}_canaries=0."
        )
    prompts = _prompts(run)
    chosen = rng.integers(len(prompts.inputs), size=count)
    config = DecodingConfig("nucleus", _length(run), temperature=TEMPERATURE, seed=0)
    trainable, frozen = model.init(jax.random.key(0), run.params)
    found = decode.decode_all(
        decode.make_decode(decoder_of(model), config, layout.end_id, jax.jit),
        trainable,
        frozen,
        prompts.tokens[chosen],
        prompts.lengths[chosen],
        seed=0,
        rows=run.settings.training.eval_batch_size,
    )
    kept = np.minimum(found.lengths + found.is_finished, _length(run))  # The end is learned too.
    return [
        _row_of(prompts, number, text[:size])
        for number, text, size in zip(chosen, found.tokens, kept, strict=True)
    ]


def _row_of(prompts: Prompts, number: int, text: np.ndarray) -> Row:
    """A prompt and what is to be written after it."""
    prompt = prompts.tokens[number, : prompts.lengths[number]]
    marks = np.concatenate([np.zeros_like(prompt), np.ones_like(text)])
    return np.concatenate([prompt, text]).astype(np.int32), marks.astype(np.int32)


def _prompts(run: Run) -> Prompts:
    """Inputs of the first evaluation set, which are not private here."""
    prompts = next(iter(run.splits.evals.values())).prompts
    assert prompts is not None  # Sets of generation have them.
    return prompts


def _length(run: Run) -> int:
    """L: what a row has room for beside a prompt."""
    layout, longest = run.codec.layout, run.splits.train.max_length
    room = longest // 4 if layout is None else longest - layout.max_prompt
    return max(1, min(_MOST_TOKENS, room))


def _words(codec: Codec) -> np.ndarray:
    """Ids of ordinary tokens."""
    return np.setdiff1d(np.arange(codec.info.vocab_size), codec.info.special_ids)


def _extended(encoded: Encoded, rows: Sequence[Row]) -> Encoded:
    """Encoded rows and further ones."""
    names = list(encoded.tokens)
    parts = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    tokens: Mapping[str, np.ndarray] = {
        name: np.concatenate([encoded.tokens[name], *parts[name]]).astype(np.int32)
        for name in names
    }
    sizes = [len(row[0]) for row in rows]
    return Encoded(
        tokens=tokens,
        offsets=np.concatenate([encoded.offsets, encoded.offsets[-1] + np.cumsum(sizes)]),
        truncated_rows=encoded.truncated_rows,
    )
