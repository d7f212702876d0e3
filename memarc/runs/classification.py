"""Classification as a job: its data, its model, its batches and its scores."""

from functools import partial

import jax

from memarc.data import load
from memarc.data.tasks import get_task
from memarc.evaluation import classify, scores
from memarc.models.build import Model, build
from memarc.models.head import HeadConfig
from memarc.runs.job import Job
from memarc.training import sharding


def _unit(task, config):
    del config
    return get_task(task).privacy_unit


def _build(settings, splits, backbone) -> Model:
    """The classifier of a run.

    Raises:
      ValueError: If tokenizer and backbone do not belong together.
    """
    info = splits.tokenizer
    if info.pad_id != backbone.pad_id:
        raise ValueError(
            f"Tokenizer {info.name!r} pads with id {info.pad_id}; the backbone has "
            f"{backbone.pad_id}. Give the tokenizer that the weights were trained with."
        )
    types = 1 + max(
        int(dataset.encoded.token_type_ids.max(initial=0))
        for dataset in (splits.train, *splits.evals.values())
    )
    if types > backbone.type_vocab:
        raise ValueError(
            f"Tokenizer {info.name!r} writes {types} token types; the backbone has "
            f"{backbone.type_vocab}."
        )
    head = HeadConfig(settings.head.pooling, splits.num_labels)
    return build(settings.method, settings.options, backbone, head)


def _batch(run, rows, length):
    del run
    ids = jax.ShapeDtypeStruct((rows, length), "int32")
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {**dict.fromkeys(names, ids), "labels": jax.ShapeDtypeStruct((rows,), "int32")}


def _evaluate(run, trainable, frozen, folder):
    del folder
    predict = classify.make_predict(run.model, partial(sharding.compile_rows, run.placement))
    found = {}
    for split, dataset in run.splits.evals.items():
        labels, predicted = classify.predict_all(
            predict,
            trainable,
            frozen,
            dataset,
            buckets=run.splits.buckets,
            rows=run.settings.training.eval_batch_size,
        )
        for name, value in scores.score(run.splits.task.metrics, labels, predicted).items():
            found[f"{split}_{name}"] = value
    return found


JOB = Job(load.load, _unit, _build, _batch, _evaluate)
