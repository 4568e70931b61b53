"""Frame numbers drawn into a video as blocks, which survive H.264 and every effect of the filter.

A row of blocks in the luma plane: white, black, sixteen bits (the highest first), one that makes the number
of white bits even. The first two tell a reader whether the picture was inverted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BITS", "BLOCK", "draw", "read"]

BLOCK = 16  # pixels, a macroblock, so that a block is coded by itself
BITS = 16
_BLOCKS = BITS + 3
_BLACK, _WHITE = 16, 235  # of the limited range
_CONTRAST = 60

Plane = npt.NDArray[np.uint8]


def draw(luma: Plane, number: int) -> None:
    """Draw a number into the upper left corner.

    Args:
        luma: The luma plane, `(height, width)`, at least 16x304; it is changed.
        number: 0 to 65,535.
    """
    bits = [(number >> place) & 1 for place in reversed(range(BITS))]
    row = np.array([1, 0, *bits, sum(bits) % 2], np.uint8)
    values = np.where(row == 1, _WHITE, _BLACK).astype(np.uint8)
    luma[:BLOCK, : _BLOCKS * BLOCK] = np.repeat(values, BLOCK)


def read(luma: Plane) -> int | None:
    """The number in a luma plane, inverted or mirrored as it may be; None when there is none."""
    for plane in (luma, luma[:, ::-1]):
        number = _read(plane)
        if number is not None:
            return number
    return None


def _read(luma: Plane) -> int | None:
    row = luma[4 : BLOCK - 4, : _BLOCKS * BLOCK]
    if row.shape[1] < _BLOCKS * BLOCK:
        return None
    blocks = row.reshape(row.shape[0], _BLOCKS, BLOCK)[:, :, 4:-4].mean(axis=(0, 2))
    white, black = float(blocks[0]), float(blocks[1])
    if abs(white - black) < _CONTRAST:
        return None
    bits = (blocks[2:] > (white + black) / 2) == (white > black)
    if bits.sum() % 2:
        return None
    return int(sum(1 << place for place, bit in zip(reversed(range(BITS)), bits[:BITS], strict=True) if bit))
