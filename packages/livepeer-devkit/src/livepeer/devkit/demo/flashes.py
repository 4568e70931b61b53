"""A flash along the picture's lower edge, which survives H.264 and every effect of the filter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LONG", "draw", "read"]

LONG = 0.1  # seconds that one lasts
_BLACK, _WHITE = 16, 235  # of the limited range
_CONTRAST = 60
_SHARE = 8  # of the height that the edge takes

Plane = npt.NDArray[np.uint8]


def draw(luma: Plane, on: bool) -> None:
    """Draw the edge into a luma plane, `(height, width)`: black, its right half white while it flashes."""
    edge = luma[-(luma.shape[0] // _SHARE) :]
    edge[:] = _BLACK
    edge[:, luma.shape[1] // 2 :] = _WHITE if on else _BLACK


def read(luma: Plane) -> bool:
    """Whether it flashes in this picture, inverted or mirrored as it may be."""
    edge = luma[-(luma.shape[0] // _SHARE) :]
    # away from the edges of its halves, where H.264 smears
    margin_rows, margin_columns = edge.shape[0] // 4, edge.shape[1] // 8
    inner = edge[margin_rows : edge.shape[0] - margin_rows]
    middle = edge.shape[1] // 2
    left = float(inner[:, margin_columns : middle - margin_columns].mean())
    right = float(inner[:, middle + margin_columns : edge.shape[1] - margin_columns].mean())
    return abs(left - right) > _CONTRAST
