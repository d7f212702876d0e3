"""The workloads: sizes of a backbone, rows, tokens, and what each tuning method is given."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from memarc.measure.case import Case, parse
from memarc.models.methods import REMAT_SUFFIX

METHODS = ("full", "lora")
"""Tuning methods that every peer can be asked for."""

SMALL: Mapping[str, int] = {
    "vocab_size": 67,
    "width": 24,
    "layers": 2,
    "heads": 4,
    "feed_forward": 40,
    "max_positions": 37,
}
SMALL_KEY_HEADS, SMALL_ROWS, SMALL_TOKENS = 2, 5, 11
"""Sizes of the case that clipped sums are compared on, and of everything under --tiny."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes:
      config: The config file of its sizes, in configs/.
      rows: Rows of a step.
      tokens: Tokens of a row.
      options: Method -> options other than the method's defaults.
    """

    config: str
    rows: int
    tokens: int
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


WORKLOADS: Mapping[str, Workload] = {
    "w1": Workload("bench.w1", 16, 128),
    "w2": Workload("bench.w2", 32, 64),
    "roberta_large": Workload("memory.roberta_large", 32, 128),
    "qwen_twin": Workload(
        "memory.qwen2_7b",
        8,
        512,
        {
            "lora": {
                "rank": 16,
                "targets": (
                    "query",
                    "key",
                    "value",
                    "attention_output",
                    "intermediate",
                    "gated",
                    "output",
                ),
            }
        },
    ),
}


def make_case(name: str, label: str, *, is_small: bool, dtype: str | None = None) -> Case:
    """Makes the case of a workload and a method.

    Args:
      name: A name of `WORKLOADS`.
      label: A name of `METHODS`, with the suffix "+remat" or without.
      is_small: Whether sizes are `SMALL`; kind of backbone, head and options stay.
      dtype: Compute dtype and that of frozen weights; None keeps the config's.

    Raises:
      ValueError: For an unknown workload or method, naming the choices.
    """
    if name not in WORKLOADS:
        raise ValueError(f"Unknown workload {name!r}; choose one of {tuple(WORKLOADS)}.")
    method = label.removesuffix(REMAT_SUFFIX)
    if method not in METHODS:
        raise ValueError(
            f"Method {label!r} is none that peers share ({METHODS}); experiments.bench times "
            "memarc's own."
        )
    workload = WORKLOADS[name]
    config = importlib.import_module(f"configs.{workload.config}").get_config().to_dict()
    sizes = dict(config["backbone"])
    if is_small:
        sizes |= SMALL
        if "kv_heads" in sizes:
            sizes["kv_heads"] = SMALL_KEY_HEADS
    if dtype is not None:
        sizes["dtype"] = config["storage_dtype"] = dtype
    config["backbone"] = sizes
    config["options"][method] |= workload.options.get(method, {})
    return parse(
        config,
        label,
        batch_size=SMALL_ROWS if is_small else workload.rows,
        seq_len=SMALL_TOKENS if is_small else workload.tokens,
        layers=None,
    )
