"""E2E: texts from meaning representations, three methods at epsilon 8 and 3, one without noise.

    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py:gpu --workdir=weights/gpu
    python -m experiments.run --config=configs/e2e.py --workdir=/tmp/e2e

and without a GPU, from a smaller decoder and for one epoch,

    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py:cpu --workdir=weights/cpu
    python -m experiments.run --config=configs/e2e.py:cpu --workdir=/tmp/e2e

Reads data/e2e/{trainset,devset,testset_w_refs}.csv(.gz), 42,061 / 4,672 / 4,693 references. The
decoders are small; they were pre-trained on WebNLG, texts that copy, and a grammar written by hand
for E2E's slots, so they describe restaurants before they are tuned. With a network, GPT-2 itself,
and one rate for all runs: ``--config.model.weights=openai-community/gpt2-large
--config.data.tokenizer=openai-community/gpt2 --config.optimizer.learning_rate=1e-3``.
"""

from configs import common

PRESETS = (*common.PRESETS, "cpu")
DECODERS = {"full": "weights/gpu/backbone", "cpu": "weights/cpu/backbone"}
RATES = {
    "full": {"lora": 4e-3, "side": 2e-2, "reversible": 6e-3},
    "cpu": {"lora": 5e-3, "side": 2.5e-2, "reversible": 1e-2},
}


def get_config(preset="full"):
    common.check_preset(preset, PRESETS)
    size = "cpu" if preset == "cpu" else "full"
    config = common.generation("e2e")
    config.data.tokenizer = config.model.weights = DECODERS[size]
    config.data.max_prompt = 56
    config.data.max_length = 128
    config.data.buckets = (80, 128)
    config.decoding.max_tokens = 72
    config.model.dtype = config.model.storage_dtype = "bfloat16"
    config.privacy.delta = 8e-6
    config.privacy.clipping = "automatic"
    config.privacy.accountant = "rdp"  # As the papers that it is compared with.
    config.privacy.expected_batch_size = 1024
    config.privacy.engine = "vmap"
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 128
    config.optimizer.warmup_fraction = 0.0
    config.training.epochs = 3.0  # 123 steps.
    config.training.log_every = 1
    config.training.checkpoint_every = 50
    attention = ("query", "key", "value", "attention_output")
    config.options.lora.targets = (*attention, "intermediate", "output")
    config.options.side.downsample = "frozen"
    config.options.side.reduction = 4
    config.runs = _runs(RATES[size])
    if preset == "cpu":
        _on_cpu(config)
    if preset == "smoke":
        common.smoke(config)
    return config


def _runs(rates):
    """Every method at both budgets, and LoRA without noise."""
    return {
        f"{method}-{name}": {
            "method": method,
            "privacy": {"epsilon": epsilon},
            "optimizer": {"learning_rate": rate},
        }
        for name, epsilon in {"eps8": 8.0, "eps3": 3.0, "inf": float("inf")}.items()
        for method, rate in rates.items()
        if name != "inf" or method == "lora"
    }


def _on_cpu(config):
    """One epoch, in minutes to a quarter of an hour a run."""
    config.data.buckets = (48, 64, 80, 96, 128)
    config.model.dtype = config.model.storage_dtype = "float32"
    config.privacy.expected_batch_size = 512
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 16
    config.training.epochs = 1.0  # 82 steps.
    config.training.checkpoint_every = 10
