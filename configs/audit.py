"""An audit of LoRA at epsilon 8 on the embedded task, by canaries of two kinds.

    python -m experiments.audit --config=configs/audit.py --workdir=/tmp/audit

About a minute on two CPU cores. Without noise the audit must contradict a small claim:

    --config.privacy.epsilon=inf --config.audit.claimed_epsilon=1
"""

from ml_collections import config_dict

from configs import common


def get_config(preset="full"):
    common.check_preset(preset)
    config = common.classification("reviews")
    common.embedded(config)
    config.head.pooling = "mean"
    config.privacy.accountant = "rdp"  # As its result in results/audit was made.
    config.privacy.engine = "vmap"
    config.privacy.expected_batch_size = 500
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 64
    config.optimizer.learning_rate = 1e-2
    config.training.epochs = 3.0
    config.audit = dict(
        gradient_canaries=1000,
        text_canaries=500,
        confidence=0.95,
        claimed_epsilon=config_dict.placeholder(float),  # None: the proven epsilon.
    )
    if preset == "smoke":
        common.smoke(config)
        config.audit.gradient_canaries = config.audit.text_canaries = 60
        config.privacy.delta = 1e-4
    return config
