"""Rows of your own, from files: classification, :regression or :generation.

    python -m experiments.run --config=configs/own.py --workdir=OUT --config.model.weights=FOLDER \
        --config.data.train=train.csv --config.data.dev=dev.csv --config.data.text=note \
        --config.data.label=ward --config.data.labels=surgery,cardiology,neurology

A field that holds several names takes them between commas; quote a name that holds one, as in CSV.
What each field means: `memarc.data.own_config.OwnConfig`, and docs/own_data.md.
"""

from configs import common

PRESETS = ("full", "regression", "generation", "smoke")

LISTS = ("train", "dev", "validation", "text", "labels", "range", "metrics")
"""Fields of several texts or numbers, which are written as one text here."""


def get_config(preset="full"):
    common.check_preset(preset, PRESETS)
    if preset == "generation":
        config = common.generation("generation")
        config.data.separator = None
        config.data.max_prompt = None
        config.data.max_length = 256
        common.greedy(config)
    elif preset == "regression":
        config = common.regression("regression")
    else:
        config = common.classification("classification")
    config.data.buckets = ()  # One length, data.max_length.
    config.data.root = None
    config.data.source = "own"
    config.privacy.physical_batch_size = config.privacy.microbatch_size = 16
    if preset == "smoke":
        common.smoke(config)
        return config
    with config.data.ignore_type():
        for name in LISTS:
            config.data[name] = ""
    return config
