"""ARRAYS -> LOSSES: backbones in Flax linen, the ways to tune them, and pre-trained weights."""
