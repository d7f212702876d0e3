"""E2E: texts from meaning representations, three methods at epsilon 8 and 3, one without noise.

    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py --workdir=weights/small
    python -m experiments.run --config=configs/e2e.py --workdir=/tmp/e2e

Reads data/e2e/{trainset,devset,testset_w_refs}.csv(.gz), 42,061 / 4,672 / 4,693 references. The
decoder is small; it was pre-trained on WebNLG and a grammar written by hand for E2E's slots, so it
describes restaurants before it is tuned. With a network, GPT-2 itself:
``--config.model.weights=openai-community/gpt2-large --config.data.tokenizer=openai-community/gpt2
--config.optimizer.learning_rate=1e-3``; with a GPU, ``--config.model.dtype=bfloat16`` as well.
"""

from configs import common

SMALL = "weights/small/backbone"


def get_config(preset="full"):
    common.check_preset(preset)
    config = common.generation("e2e")
    config.data.tokenizer = config.model.weights = SMALL
    config.data.max_prompt = 56
    config.data.max_length = 128
    config.data.buckets = (48, 64, 80, 96, 128)
    config.decoding.max_tokens = 72
    config.privacy.delta = 8e-6
    config.privacy.clipping = "automatic"
    config.privacy.expected_batch_size = 512
    config.privacy.engine = "vmap"
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 16
    config.optimizer.warmup_fraction = 0.0
    config.training.epochs = 1.0  # 82 steps.
    config.training.log_every = 1
    config.training.checkpoint_every = 10
    attention = ("query", "key", "value", "attention_output")
    config.options.lora.targets = (*attention, "intermediate", "output")
    config.options.side.downsample = "frozen"
    config.options.side.reduction = 4
    rates = {"lora": 2e-3, "side": 1e-2, "reversible": 2e-3}
    config.runs = {
        f"{method}-{name}": {
            "method": method,
            "privacy": {"epsilon": epsilon},
            "optimizer": {"learning_rate": rate},
        }
        for name, epsilon in {"eps8": 8.0, "eps3": 3.0, "inf": float("inf")}.items()
        for method, rate in rates.items()
        if name != "inf" or method == "lora"
    }
    if preset == "smoke":
        common.smoke(config)
    return config
