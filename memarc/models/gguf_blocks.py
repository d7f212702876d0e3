"""What ggml's simple blocks are made of: codes, a scale, and of some an offset, as arrays.

The package `gguf` widens blocks; here they stay as they are. A block holds 32 values of a row.
"""

import ml_dtypes
import numpy as np

BLOCK = 32
"""Values of a block."""

CODES = {
    "Q8_0": np.dtype(np.int8),
    "Q4_0": np.dtype(ml_dtypes.int4),
    "Q4_1": np.dtype(ml_dtypes.uint4),
}
"""Type of a tensor in the words of ggml -> dtype of its codes."""

_BITS = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}
_HEAD = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}  # Bytes before the codes: a scale, and an offset.


def codes(blocks: np.ndarray, kind: str) -> np.ndarray:
    """Codes int8 [R, 32 m] of R rows of m blocks, uint8 [R, m * bytes of a block]."""
    rest = _split(blocks, kind)[..., _HEAD[kind] :]
    if kind == "Q8_0":
        found = rest.view(np.int8)
    else:  # The low halves of all bytes come first.
        found = np.concatenate([rest & 15, rest >> 4], axis=-1).astype(np.int8)
        found -= 8 if kind == "Q4_0" else 0
    return found.reshape(len(blocks), -1)


def scales(blocks: np.ndarray, kind: str) -> np.ndarray:
    """Scales float16 [R, m]."""
    return np.ascontiguousarray(_split(blocks, kind)[..., :2]).view(np.float16)[..., 0]


def offsets(blocks: np.ndarray, kind: str) -> np.ndarray:
    """Offsets float16 [R, m], of "Q4_1"."""
    return np.ascontiguousarray(_split(blocks, kind)[..., 2:4]).view(np.float16)[..., 0]


PARTS = {"codes": codes, "scales": scales, "offsets": offsets}


def _split(blocks: np.ndarray, kind: str) -> np.ndarray:
    """[R, m * bytes] -> [R, m, bytes]."""
    size = _HEAD[kind] + BLOCK * _BITS[kind] // 8
    return blocks.reshape(len(blocks), -1, size)
