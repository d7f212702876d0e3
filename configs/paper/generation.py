"""The table of generation: GPT-2 on E2E and DART, seven methods at epsilon 3, 8 and without noise.

    python -m experiments.run --config=configs/paper/generation.py:large --workdir=OUT \
        --only=large-e2e-lora-eps8
    python -m experiments.tabulate --config=configs/paper/generation.py:large --workdir=OUT \
        --by_task --scores=test_bleu_e2e,test_bleu,test_rouge_l,test_perplexity

Presets: large, medium and small, 42 runs each, and tiny, the same path on embedded rows with random
weights: ``python -m tests.tiny_weights weights/tiny``. Reads data/e2e/ and data/dart/.
docs/paper.md tells what is published.
"""

from configs import common
from configs.paper import grid

PRESETS = ("large", "medium", "small", "tiny")
_WEIGHTS = {
    "large": "openai-community/gpt2-large",
    "medium": "openai-community/gpt2-medium",
    "small": "openai-community/gpt2",
    "tiny": "weights/tiny/gpt2",
}
# Task -> (delta, rate and epochs of full fine-tuning): Li et al.
TASKS = {"e2e": (8e-6, 2e-3, 10), "dart": (1e-5, 5e-4, 15)}


def get_config(preset="large"):
    common.check_preset(preset, PRESETS)
    config = common.generation("e2e")
    config.model.weights = _WEIGHTS[preset]
    config.data.max_length = 192
    config.data.max_prompt = 96
    config.data.buckets = (96, 128, 192)
    config.privacy.accountant = "rdp"
    config.optimizer.update(schedule="constant", warmup_fraction=0.0)
    config.options.lora.update(rank=4, alpha=32.0)  # Yu et al.
    # Decoding of Yu et al.
    config.decoding.update(beams=10, length_penalty=0.8, no_repeat_ngram=4)
    if preset == "tiny":
        common.restaurants(config)
        config.model.weights = _WEIGHTS[preset]
        config.decoding.update(beams=2, max_tokens=6)
        grid.tiny(config, ("restaurants",))
    else:
        config.runs = grid.runs(preset, TASKS, _run)
    return config


def _run(task, method):
    delta, rate, epochs = TASKS[task]
    privacy, head = {"delta": delta, "clip_norm": 0.1, "expected_batch_size": 1024}, {}
    if method in ("lora", "adapter"):  # Yu et al. 2022, arXiv:2110.06500, on E2E.
        privacy |= {"clip_norm": 1.0, "expected_batch_size": 128}
        rate, epochs, head = 4e-4, 20, {"smoothing": 0.1}
    if method in ("bitfit", "head"):  # Ours: "larger than full" is what is published.
        rate = 1e-2
    if method in ("side", "reversible"):  # Ours: nothing is published.
        privacy |= {"clip_norm": 1.0, "clipping": "automatic"}
        rate = 2e-3
    return {
        "task": task,
        "method": method,
        "privacy": privacy,
        "head": head,
        "optimizer": {"learning_rate": rate},
        "training": {"epochs": float(epochs)},
    }
