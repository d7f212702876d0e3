"""The fields of every config that states sizes alone: memory reports and benchmarks.

No weights and no data are read. A method is written NAME, or NAME+remat to keep only each layer's
input for the backward pass.
"""

from ml_collections import config_dict

from configs import common
from memarc.models.language import LanguageConfig
from memarc.ops import quantised


def encoder(**backbone) -> config_dict.ConfigDict:
    """The base of an encoder's config; a config file gives the sizes of its backbone."""
    config = _shapes(
        dict(
            max_positions=514,
            type_vocab=1,
            norm_epsilon=1e-5,
            activation="gelu",
            pad_id=1,
            **backbone,
        )
    )
    config.head = dict(pooling="first", classes=2)
    return config


def decoder(**backbone) -> config_dict.ConfigDict:
    """The base of a decoder's config; all tokens of a row are targets."""
    config = _shapes(backbone)
    config.head = common.section(LanguageConfig)
    return config


def llama(**sizes) -> config_dict.ConfigDict:
    """The base of a LLaMA's config, bfloat16; a config file gives width, depth and heads."""
    return decoder(
        kind="llama",
        vocab_size=32000,
        max_positions=4096,
        norm_epsilon=1e-5,
        activation="silu",
        has_table=True,
        attention_block=128,
        dtype="bfloat16",
        **sizes,
    )


def _shapes(backbone) -> config_dict.ConfigDict:
    config = config_dict.ConfigDict()
    config.backbone = {"attention_block": 0, **backbone}
    config.storage_dtype = backbone["dtype"]  # Of frozen weights; "int8" and "int4" are blocks,
    config.storage_block = quantised.BLOCK  # of which so many inputs share a scale.
    config.options = common.method_options()
    config.options.side.downsample = "frozen"
    config.privacy = dict(
        clip_norm=1.0, clipping="abadi", clipping_scope="flat", noise_multiplier=1.0
    )
    config.optimizer = common.optimizer()
    return config
