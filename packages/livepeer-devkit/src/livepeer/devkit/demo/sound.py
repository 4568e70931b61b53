"""The sound of the demo: beeps made here or the user's own sound, and where it is in what came back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

__all__ = ["RATE", "Piece", "Track", "clicks", "lag", "length_of", "onsets", "read"]

RATE = 48_000  # samples per second
PIECE = RATE // 50  # samples that are written at once, as a microphone gives them
_JUMP = 0.05  # seconds between two frames of a file that are a gap and no rounding
_BEEP, _HUM = (1000.0, 0.5, 0.06), (220.0, 0.03)  # Hz, loudness of 1, seconds
_LOUD = 0.2  # of 1; above the hum, and reached by a beep in a tenth of a millisecond
_WINDOW = RATE // 1000  # samples to a millisecond
_SEARCHED = 250  # milliseconds in which a lag is looked for
_SILENT = 1e-4

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Some sound: the time of its first sample in seconds, and ``(samples, channels)`` float32 at `RATE`."""

    timestamp: float
    samples: Samples

    @property
    def end(self) -> float:
        """The time after its last sample."""
        return self.timestamp + len(self.samples) / RATE


def clicks(times: Sequence[float], seconds: float) -> Iterator[Piece]:
    """A beep at each of these times over a faint hum, in stereo."""
    whole = np.arange(round(seconds * RATE)) / RATE
    track = _HUM[1] * np.sin(2 * np.pi * _HUM[0] * whole)
    frequency, loudness, length = _BEEP
    beep = loudness * np.sin(2 * np.pi * frequency * np.arange(round(length * RATE)) / RATE)
    for time in times:
        place = track[round(time * RATE) :][: len(beep)]
        place[:] = beep[: len(place)]
    stereo = np.repeat(track.astype(np.float32)[:, None], 2, axis=1)
    for begin in range(0, len(stereo), PIECE):
        yield Piece(begin / RATE, stereo[begin : begin + PIECE])


def read(path: Path, beginning: float, seconds: float) -> Iterator[Piece]:
    """A file's sound, mono or stereo, from its own time `beginning` on, for at most `seconds`."""
    limit = round(seconds * RATE)
    for piece in _pieces(path, beginning):
        left = limit - round(piece.timestamp * RATE)
        if left <= 0:
            return
        yield Piece(piece.timestamp, piece.samples[:left])


def _pieces(path: Path, beginning: float) -> Iterator[Piece]:
    with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):  # a broken tail is an end
        channels = min(container.streams.audio[0].channels, 2)
        resampler = av.AudioResampler("flt", "mono" if channels == 1 else "stereo", RATE)
        waiting, at = np.zeros((0, channels), np.float32), 0.0
        for frame in container.decode(audio=0):
            time = (frame.time or 0.0) - beginning
            if abs(time - at - len(waiting) / RATE) > _JUMP:
                if len(waiting):
                    yield Piece(at, waiting)
                waiting, at = waiting[:0], time
            samples = [one.to_ndarray().reshape(-1, channels) for one in resampler.resample(frame)]
            waiting = np.concatenate([waiting, *samples]).astype(np.float32)
            if at < 0:  # before the first picture
                cut = min(round(-at * RATE), len(waiting))
                waiting, at = waiting[cut:], at + cut / RATE
            while len(waiting) >= PIECE:
                yield Piece(at, waiting[:PIECE])
                waiting, at = waiting[PIECE:], at + PIECE / RATE
        if len(waiting):
            yield Piece(at, waiting)


class Track:
    """Sound put together again by its times: one value per sample, the channels mixed."""

    def __init__(self) -> None:
        self.pieces: int = 0
        self._parts: list[tuple[int, Samples]] = []

    def add(self, timestamp: float, samples: Samples) -> None:
        """Add ``(samples, channels)`` of `RATE` at a time in seconds."""
        self.pieces += 1
        self._parts.append((round(timestamp * RATE), samples.mean(axis=1)))

    @property
    def begin(self) -> float:
        """The time of the first sample."""
        return min((at for at, _ in self._parts), default=0) / RATE

    @property
    def end(self) -> float:
        """The time after the last sample."""
        return max((at + len(part) for at, part in self._parts), default=0) / RATE

    @property
    def missing(self) -> float:
        """Seconds between the first and the last sample for which there is none."""
        whole = np.ones(round((self.end - self.begin) * RATE), bool)
        for at, part in self._parts:
            begin = at - round(self.begin * RATE)
            whole[begin : begin + len(part)] = False
        return float(whole.sum()) / RATE

    def loudness(self) -> Samples:
        """The loudest sample of each millisecond from 0 s on."""
        whole = np.zeros(round(max(self.end, 0) * RATE) // _WINDOW * _WINDOW + _WINDOW, np.float32)
        for at, part in self._parts:
            before = min(max(0, -at), len(part))
            whole[at + before :][: len(part) - before] = part[before:]
        loudest: Samples = np.abs(whole).reshape(-1, _WINDOW).max(axis=1)
        return loudest


def onsets(track: Track, scale: float = 1.0) -> list[float]:
    """When the beeps begin, in seconds, to a millisecond; `scale` is how loud they are of what they were."""
    loud = track.loudness() > _LOUD * scale
    found: list[float] = []
    for at in np.flatnonzero(loud[1:] & ~loud[:-1]) + 1:
        if not found or at / 1000 - found[-1] > 2 * _BEEP[2]:
            found.append(float(at) / 1000)
    return found


def lag(sent: Track, received: Track) -> tuple[float, float] | None:
    """How many seconds later the same sound is in another track, and how much alike they are (0 to 1).

    None for silence, in which nothing can be found.
    """
    one, other = sent.loudness(), received.loudness()
    length = max(len(one), len(other)) + 2 * _SEARCHED
    one, other = (np.pad(each - each.mean(), (0, length - len(each))) for each in (one, other))
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    if float(np.abs(one).max()) < _SILENT or scale == 0:
        return None
    alike = np.fft.irfft(np.fft.rfft(other) * np.conj(np.fft.rfft(one)), length)
    lags = np.concatenate([np.arange(_SEARCHED), np.arange(-_SEARCHED, 0)])
    best = int(lags[np.argmax(alike[lags])])
    return best / 1000, float(alike[best]) / scale


def length_of(path: Path) -> float:
    """How many seconds of sound a file has; every frame is decoded, 0 when there is none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return 0.0
        frames: Iterable[Any] = container.decode(audio=0)
        return float(sum(frame.samples / frame.sample_rate for frame in frames))
