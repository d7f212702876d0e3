"""Rotary positions: how fast pairs of a head's components turn, and the turning.

Axes: B batch (or several batch axes), T tokens, H heads, K width of a head, R components that turn.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from memarc.typing import Array


@dataclasses.dataclass(frozen=True)
class Bands:
    """Which wavelengths LLaMA 3 stretches for contexts beyond the original one.

    Attributes:
      context: Tokens of the original context.
      long: Wavelengths over ``context / long`` are stretched whole.
      short: Wavelengths under ``context / short`` are left alone; in between it is gradual.
    """

    context: int
    long: float
    short: float


@dataclasses.dataclass(frozen=True)
class Rope:
    """The speeds of rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
      theta: Pair i turns by theta^(-2 i / R) a position.
      share: R over K; the first R components of a head turn.
      factor: Wavelengths are this many times longer: all of them, or those that ``bands`` says.
      bands: As in LLaMA 3 (arXiv:2407.21783); None stretches all wavelengths alike.
    """

    theta: float = 10000.0
    share: float = 1.0
    factor: float = 1.0
    bands: Bands | None = None

    def width(self, head_width: int) -> int:
        """R, of heads of width K."""
        return int(head_width * self.share)

    def speeds(self, head_width: int) -> tuple[float, ...]:
        """Radians a position of each pair, R / 2 of them, of heads of width K."""
        half = self.width(head_width) // 2
        speeds = float(self.theta) ** (-np.arange(half) / half)
        return tuple((speeds * self._stretch(speeds)).tolist())

    def _stretch(self, speeds: np.ndarray) -> np.ndarray:
        """What each speed is multiplied by."""
        if self.bands is None:
            return np.full_like(speeds, 1.0 / self.factor)
        bands = self.bands
        turns = bands.context * speeds / (2.0 * math.pi)  # In the original context.
        kept = np.clip((turns - bands.long) / (bands.short - bands.long), 0.0, 1.0)
        return kept + (1.0 - kept) / self.factor


def turn(x: Array, positions: Array, speeds: Array) -> Array:
    """Turns heads by rotary positions.

    Components i and R / 2 + i of a head form a pair, as in published weights; those from R on stay.

    Args:
      x: [B, T, H, K].
      positions: int32[B, T].
      speeds: [R / 2], radians a position, float32 or wider; pairs of speed 0 stay as they are.

    Returns:
      [B, T, H, K] in the dtype of ``x``; angles and products are in that of ``speeds``.
    """
    angles = jnp.tensordot(positions.astype(speeds.dtype), speeds, axes=0, precision="highest")
    angles = angles[..., None, :]  # [B, T, 1, R / 2]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    half = speeds.shape[-1]
    first, second, rest = jnp.split(x, (half, 2 * half), axis=-1)
    first, second = first.astype(speeds.dtype), second.astype(speeds.dtype)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate([*(y.astype(x.dtype) for y in turned), rest], axis=-1)
