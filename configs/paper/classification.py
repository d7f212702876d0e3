"""The table of classification: RoBERTa on GLUE, seven methods at epsilon 3, 8 and without noise.

    python -m experiments.run --config=configs/paper/classification.py:large --workdir=OUT \
        --only=large-sst2-lora-eps8
    python -m experiments.tabulate --config=configs/paper/classification.py:large --workdir=OUT \
        --by_task --scores=dev_accuracy,matched_accuracy,mismatched_accuracy

Presets: large and base, 84 runs each, and tiny, the same path on embedded rows with random weights:
``python -m tests.tiny_weights weights/tiny``. GLUE comes through tensorflow-datasets, or from files
by ``--config.data.source=files --config.data.root=data``. docs/paper.md tells what is published.
"""

from configs import common
from configs.paper import grid

PRESETS = ("large", "base", "tiny")
# Task -> (rows of the published train set; factor of Li et al.'s batch and epochs).
TASKS = {"sst2": (67_349, 1), "qnli": (104_743, 2), "qqp": (363_846, 6), "mnli": (392_702, 6)}
# The clip norms of Yu et al. for LoRA and adapters.
_CLIP = {"large": 2.0, "base": 10.0}


def get_config(preset="large"):
    common.check_preset(preset, PRESETS)
    config = common.classification("sst2")
    config.model.weights = f"FacebookAI/roberta-{preset}"
    config.data.source = "tfds_download"
    config.data.root = "data/tfds"
    config.data.max_length = 256  # Li et al.
    config.data.buckets = (32, 64, 128, 256)
    config.privacy.accountant = "rdp"
    config.options.lora.rank = config.options.adapter.bottleneck = 16  # Yu et al.
    if preset == "tiny":
        common.embedded(config)
        config.model.weights = "weights/tiny/roberta"
        grid.tiny(config, ("reviews",))
    else:
        config.runs = grid.runs(preset, TASKS, lambda task, method: _run(preset, task, method))
    return config


def _run(size, task, method):
    rows, factor = TASKS[task]
    privacy, optimizer, epochs = _published(size, method, factor)
    return {
        "task": task,
        "method": method,
        "privacy": {"delta": 1 / (2 * rows), **privacy},  # As in FastDP's scripts.
        "optimizer": optimizer,
        "training": {"epochs": float(epochs)},
    }


def _published(size, method, factor):
    """Privacy, optimizer and epochs of a method."""
    if method in ("lora", "adapter"):  # Yu et al. 2022, arXiv:2110.06500.
        privacy = {"clip_norm": _CLIP[size], "expected_batch_size": 2000}
        rate = {"learning_rate": 1e-3, "warmup_fraction": 0.06, "weight_decay": 0.01}
        return privacy, rate, 50
    # Batch and epochs of Li et al. 2022, arXiv:2110.05679.
    privacy = {"clip_norm": 0.1, "expected_batch_size": 1000 * factor}
    rate = {"learning_rate": 5e-4, "warmup_fraction": 0.0}
    if method in ("bitfit", "head"):  # Ours: "larger than full" is what is published.
        rate["learning_rate"] = 5e-3
    if method in ("side", "reversible"):  # Ours: nothing is published.
        privacy |= {"clip_norm": 1.0, "clipping": "automatic"}
        rate["learning_rate"] = 1e-3
    return privacy, rate, 3 * factor
