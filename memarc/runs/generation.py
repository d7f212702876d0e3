"""Generation as a job: its model, its texts and their scores."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from memarc.data.codec import Codec, Prompts
from memarc.data.load import EvalSet, Splits
from memarc.evaluation import decode, perplexity, text_scores
from memarc.evaluation.decoding import Decoded, Decoder, DecodingConfig
from memarc.evaluation.predicted import Found, Predicted
from memarc.evaluation.scores import UNDEFINED
from memarc.models.build import build
from memarc.models.config import BackboneConfig
from memarc.models.language import LanguageConfig, LanguageModel
from memarc.runs.parts import Parts
from memarc.runs.settings import Settings
from memarc.training import processes, sharding
from memarc.training.optimizer import check_without_head
from memarc.training.sharding import Placement
from memarc.typing import Params

OUTPUTS = "outputs-{split}.jsonl"
"""Where the texts of an evaluation set are written, one line an input."""

_PERPLEXITY, _UNFINISHED, _CUT_PROMPTS = "perplexity", "unfinished", "cut_prompts"


@dataclasses.dataclass(frozen=True)
class Generation:
    """Implements `memarc.runs.job.Job`."""

    def build(self, settings: Settings, codec: Codec, backbone: BackboneConfig) -> LanguageModel:
        """Builds the language model of a run.

        Raises:
          ValueError: If prompts and their continuations are longer than the backbone can read, or
            the optimizer is told of a head, which a language model has not.
        """
        assert isinstance(settings.head, LanguageConfig) and settings.decoding
        check_without_head(settings.optimizer)
        assert codec.layout is not None
        prompt, new = codec.layout.max_prompt, settings.decoding.max_tokens
        if prompt + new > backbone.longest_sequence:
            raise ValueError(
                f"data.max_prompt is {prompt} and decoding.max_tokens {new}, {prompt + new} in "
                f"all; the backbone has positions for {backbone.longest_sequence} tokens."
            )
        return build(settings.method, settings.options, backbone, settings.head)

    def check_rows(self, splits: Splits, backbone: BackboneConfig) -> None:
        """Accepts all rows: a decoder reads whatever the tokenizer writes."""
        del splits, backbone

    def predict(
        self,
        parts: Parts,
        trainable: Params,
        frozen: Params,
        evals: Mapping[str, EvalSet],
        folder: Path | None,
    ) -> Found:
        """Writes the texts of every evaluation set, and finds how likely the references are.

        No text is written where the perplexity is the only score that is asked for.
        """
        metrics, found = parts.settings.record_of_task.metrics, {}
        for split, given in evals.items():
            predicted = [_references(parts, trainable, frozen, given)]
            if metrics != (_PERPLEXITY,):
                texts = _texts(parts, trainable, frozen, split, given, folder)
                predicted.insert(metrics[0] == _PERPLEXITY, texts)  # The headline is first.
            found[split] = predicted
        return found


def _texts(
    parts: Parts,
    trainable: Params,
    frozen: Params,
    split: str,
    given: EvalSet,
    folder: Path | None,
) -> Predicted:
    """Writes the texts of an evaluation set, to a file too."""
    assert given.prompts is not None  # Rows of a generation task have them.
    texts, decoded = write(parts, trainable, frozen, given.prompts)
    if folder is not None:
        path = folder / OUTPUTS.format(split=split)
        processes.of_first(partial(_save, path, given.prompts, texts, decoded))
    names = [name for name in parts.settings.record_of_task.metrics if name != _PERPLEXITY]
    score = partial(_score_texts, names, texts, given.prompts, np.asarray(decoded.is_finished))
    return Predicted(len(texts), score)


def _score_texts(
    names: Sequence[str],
    texts: list[str],
    prompts: Prompts,
    is_finished: np.ndarray,
    kept: np.ndarray,
) -> dict[str, float]:
    """Scores the texts of some inputs."""
    references = [prompts.references[i] for i in kept]
    return {
        **text_scores.score(names, [texts[i] for i in kept], references),
        _UNFINISHED: 1.0 - float(is_finished[kept].mean()),
        _CUT_PROMPTS: float(prompts.is_cut[kept].mean()),
    }


def write(
    parts: Parts, trainable: Params, frozen: Params, prompts: Prompts
) -> tuple[list[str], Decoded]:
    """Writes a text for each prompt: (texts, their tokens)."""
    model, settings, layout = parts.model, parts.settings, parts.codec.layout
    assert isinstance(model, LanguageModel) and settings.decoding and layout
    decoded = decode.decode_all(
        _decoder(model, settings.decoding, layout.end_id, parts.placement),
        trainable,
        frozen,
        prompts.tokens,
        prompts.lengths,
        seed=settings.decoding.seed,
        rows=settings.training.eval_batch_size,
    )
    return [parts.codec.decode(row) for row in decoded.tokens], decoded


def decoder_of(model: LanguageModel) -> Callable[[Params, Params], Decoder]:
    """``(trainable, frozen) -> Decoder``."""

    def make(trainable: Params, frozen: Params) -> Decoder:
        return Decoder(
            extend=partial(model.extend, trainable, frozen),
            logits=partial(model.logits, trainable, frozen),
            empty_cache=model.empty_cache,
        )

    return make


@lru_cache(maxsize=1)
def _decoder(
    model: LanguageModel, config: DecodingConfig, end_id: int, placement: Placement | None
) -> Callable[..., Decoded]:
    """The compiled function from prompts to texts, which all sets of a run share."""
    compile_rows = partial(sharding.compile_rows, placement)
    return decode.make_decode(decoder_of(model), config, end_id, compile_rows)


@lru_cache(maxsize=1)
def _surprise(model: LanguageModel, placement: Placement | None) -> Callable[..., Any]:
    """The compiled function of losses of tokens, which all sets of a run share."""
    return sharding.compile_rows(placement, model.surprise)


def _references(parts: Parts, trainable: Params, frozen: Params, given: EvalSet) -> Predicted:
    """How likely the model finds each reference."""
    assert isinstance(parts.model, LanguageModel)
    nats, tokens = perplexity.surprises(
        _surprise(parts.model, parts.placement),
        trainable,
        frozen,
        given.dataset,
        buckets=parts.settings.data.padded_lengths,
        rows=parts.settings.training.eval_batch_size,
    )
    return Predicted(len(nats), partial(_score_references, nats, tokens))


def _score_references(nats: np.ndarray, tokens: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """The perplexity of some references, and the share of them without one."""
    return {
        _PERPLEXITY: perplexity.perplexity(nats[kept], tokens[kept]),
        UNDEFINED: float((~np.isfinite(nats[kept])).mean()),
    }


def _save(path: Path, prompts: Prompts, texts: Sequence[str], decoded: Decoded) -> None:
    """Writes one line an input: what was given, written and wanted, and whether the cap cut it."""
    rows = zip(prompts.inputs, texts, prompts.references, decoded.is_finished.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        for source, text, references, is_finished in rows:
            line = {
                "input": source,
                "output": text,
                "is_finished": is_finished,
                "references": list(references),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
