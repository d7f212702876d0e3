"""Generation as a job: its data, its model, its batches, its texts and their scores."""

import json
from functools import partial

import jax

from memarc.data import generation
from memarc.evaluation import decode, perplexity, text_scores
from memarc.evaluation.decoding import Decoder
from memarc.models.language import LanguageModel, build_language_model
from memarc.runs.job import Job
from memarc.training import processes, sharding

OUTPUTS = "outputs-{split}.jsonl"
"""Where the texts of an evaluation set are written, one line an input."""


def _build(settings, splits, backbone) -> LanguageModel:
    """The language model of a run.

    Raises:
      ValueError: If prompts and their continuations are longer than the backbone can read.
    """
    for name, plain in (("head_first", 0.0), ("head_factor", 1.0)):
        given = getattr(settings.optimizer, name)
        if given != plain:  # It would hold still what is trained, and spend privacy on nothing.
            raise ValueError(
                f"optimizer.{name} is {given}; a language model gets no new head: give {plain}."
            )
    needed = settings.data.max_prompt + settings.decoding.max_tokens
    if needed > backbone.longest_sequence:
        raise ValueError(
            f"data.max_prompt is {settings.data.max_prompt} and decoding.max_tokens "
            f"{settings.decoding.max_tokens}, {needed} in all; the backbone has positions for "
            f"{backbone.longest_sequence} tokens."
        )
    return build_language_model(settings.method, settings.options, backbone, settings.head)


def _batch(run, rows, length):
    group = run.splits.train.members.shape[1:]  # (), or references of a group.
    ids = jax.ShapeDtypeStruct((rows, *group, length), "int32")
    return {name: ids for name in ("input_ids", "attention_mask", "is_target")}


def _evaluate(run, trainable, frozen, folder):
    splits, settings = run.splits, run.settings
    compile_rows = partial(sharding.compile_rows, run.placement)
    write = decode.make_decode(
        decoder_of(run.model), settings.decoding, splits.end_id, compile_rows
    )
    surprise = compile_rows(run.model.surprise)
    rows, found = settings.training.eval_batch_size, {}
    for split, given in splits.evals.items():
        decoded = decode.decode_all(
            write,
            trainable,
            frozen,
            given.prompts,
            given.prompt_lengths,
            seed=settings.decoding.seed,
            rows=rows,
        )
        texts = [splits.decode(row) for row in decoded.tokens]
        path = folder / OUTPUTS.format(split=split)
        processes.of_first(partial(_write_outputs, path, given, texts, decoded))
        found |= {
            f"{split}_{name}": value
            for name, value in text_scores.score(
                splits.task.metrics, texts, given.references
            ).items()
        }
        found[f"{split}_perplexity"] = perplexity.perplexity(
            surprise, trainable, frozen, given.dataset, buckets=splits.buckets, rows=rows
        )
        found[f"{split}_unfinished"] = 1.0 - float(decoded.is_finished.mean())
        found[f"{split}_cut_prompts"] = float(given.is_cut.mean())
    return found


def decoder_of(model: LanguageModel):
    """``(trainable, frozen) -> Decoder``."""

    def make(trainable, frozen):
        return Decoder(
            extend=lambda tokens, start, cache: model.extend(
                trainable, frozen, tokens, start, cache
            ),
            logits=lambda states: model.logits(trainable, frozen, states),
            empty_cache=model.empty_cache,
        )

    return make


def _write_outputs(path, given, texts, decoded) -> None:
    """One line an input: what was given, written, and wanted, and whether the cap cut it."""
    rows = zip(given.inputs, texts, given.references, decoded.is_finished.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        for source, text, references, is_finished in rows:
            line = {
                "input": source,
                "output": text,
                "is_finished": is_finished,
                "references": list(references),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


JOB = Job(generation.load, generation.privacy_unit, _build, _batch, _evaluate)
