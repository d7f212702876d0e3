"""MNLI with BERT weights, one method; ``--config.method=side`` and the like choose another.

    python -m experiments.run --config=configs/mnli.py --workdir=OUT

Reads data/mnli/ (GLUE's files; ``--config.data.train_file`` names a part of the train file).
"""

from configs import common


def get_config(preset="full"):
    common.check_preset(preset)
    config = common.classification("mnli")
    config.privacy.accountant = "rdp"  # As the papers that it is compared with.
    config.privacy.delta = 1 / (2 * 392_702)  # Below one over the published train rows.
    common.few_steps(config)
    if preset == "smoke":
        common.smoke(config)
    return config
