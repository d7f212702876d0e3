"""The fields of every config that states sizes alone: memory reports and benchmarks.

No weights and no data are read. A method is written NAME, or NAME+remat to keep only each layer's
input for the backward pass.
"""

from ml_collections import config_dict

from configs import common


def shapes(**backbone) -> config_dict.ConfigDict:
    """The base of a config; a config file gives the sizes of its backbone."""
    config = config_dict.ConfigDict()
    config.backbone = dict(
        max_positions=514,
        type_vocab=1,
        norm_epsilon=1e-5,
        activation="gelu",
        pad_id=1,
        attention_block=0,
        **backbone,
    )
    config.storage_dtype = backbone["dtype"]  # Of frozen weights.
    config.classes = 2
    config.pooling = "first"
    config.options = common.method_options()
    config.options.side.downsample = "frozen"
    config.privacy = dict(clip_norm=1.0, clipping="abadi", noise_multiplier=1.0)
    config.optimizer = common.optimizer()
    return config
