"""An audit of LoRA at epsilon 4 on the embedded task, by canaries of two kinds.

    python -m experiments.audit --config=configs/audit.py --workdir=/tmp/audit

A minute or two on two CPU cores. Expect a bound of about 1.5 that assumes nothing, and of about 1.8
among mechanisms that differ in their noise alone (docs/audits.md). Other presets:

- `full_batch` draws every row in every step, where an audit sees most: expect 1.8 and 2.2;
- `small` is what `python -m tests.broken` audits broken mechanisms with;
- `generation` audits LoRA on a small decoder, with texts of unused tokens and samples of the model
  itself among the canaries.

Without noise the audit must contradict the claim:

    --config.privacy.epsilon=inf --config.audit.claimed_epsilon=4
"""

from configs import common
from memarc.runs.sections import AuditConfig

PRESETS = (*common.PRESETS, "full_batch", "small", "generation")


def get_config(preset="full"):
    common.check_preset(preset, PRESETS)
    config = _generation() if preset == "generation" else _classifier()
    config.privacy.epsilon = 4.0
    config.privacy.clip_norm = 8.0  # Not 1, so that noise which forgets it shows.
    config.privacy.engine = "vmap"
    config.optimizer.learning_rate = 1e-2
    config.audit = common.section(AuditConfig)
    if preset == "generation":  # The tokenizer of reviews has but one unused token.
        config.audit.unused_canaries = config.audit.sampled_canaries = 500
    if preset == "full_batch":
        config.data.train_rows = config.privacy.expected_batch_size = 2000
        config.training.epochs = 5.0
    if preset == "small":
        config.data.train_rows, config.privacy.expected_batch_size = 800, 100
        config.privacy.microbatch_size = config.privacy.physical_batch_size = 32
        config.training.epochs = 3.0
        config.audit.gradient_canaries, config.audit.random_canaries = 6000, 0
    if preset == "smoke":
        common.smoke(config)
        config.audit.gradient_canaries = config.audit.random_canaries = 60
        config.privacy.delta = 1e-4
    return config


def _classifier():
    config = common.classification("reviews")
    common.embedded(config)
    config.data.buckets = (4, 24)  # Gradient canaries are rows of one token.
    config.head.pooling = "mean"
    config.data.train_rows = 4000
    config.privacy.expected_batch_size = 1000
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 64
    config.training.epochs = 5.0
    return config


def _generation():
    config = common.generation("restaurants")
    common.restaurants(config)
    common.greedy(config)
    config.method = "lora"
    config.data.buckets = (4, 80)
    config.data.train_rows = 2000
    config.data.dev_rows = 300
    config.privacy.expected_batch_size = 200
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 32
    config.training.epochs = 1.0
    return config
