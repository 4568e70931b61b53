"""Which effect a frame came back with: a few samples of it against the same samples of what was sent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["EFFECTS", "Samples", "differences", "samples"]

EFFECTS = ("none", "invert", "gray", "mirror")
_COLUMNS, _ROWS = 40, 24

Samples = npt.NDArray[np.int16]


def samples(planes: npt.NDArray[np.uint8]) -> Samples:
    """A grid of points of a frame in YUV, `(3, 24, 40)`, from planes as `clip.Picture` has them."""
    width = planes.shape[1]
    height = planes.shape[0] * 2 // 3
    luma = planes[:height]
    u, v = planes[height:].reshape(2, height // 2, width // 2)
    rows = np.linspace(0, height - 1, _ROWS).round().astype(int)
    columns = np.linspace(0, width - 1, _COLUMNS).round().astype(int)
    grid, small = np.ix_(rows, columns), np.ix_(rows // 2, columns // 2)
    return np.stack([luma[grid], u[small], v[small]]).astype(np.int16)


def differences(sent: Samples, received: Samples) -> dict[str, float]:
    """The mean difference (0 to 255) between what came back and each effect on what was sent."""
    return {effect: float(np.abs(_applied(effect, sent) - received).mean()) for effect in EFFECTS}


def _applied(effect: str, sent: Samples) -> Samples:
    match effect:
        case "invert":
            return np.stack([251 - sent[0], 256 - sent[1], 256 - sent[2]])
        case "gray":
            return np.stack([sent[0], np.full_like(sent[1], 128), np.full_like(sent[2], 128)])
        case "mirror":
            return sent[:, :, ::-1]
    return sent
