"""One timeline for a recording, whatever the times of the stream do: they may jump, or begin anew."""

from __future__ import annotations

from .packets import CLOCK, Packet

__all__ = ["Timeline"]

_GAP = 60 * CLOCK  # ticks; a longer one is no loss but another clock
_DISORDER = CLOCK // 2  # ticks back which are taken for a sloppy clock, and not for a new one
_STEP = CLOCK // 1000  # ticks between two packets at least; some containers count milliseconds
_RECENT = 8  # clocks among which another track's is looked for
_FRAME = CLOCK // 30  # ticks between two packets across a jump, where nothing says how many


class Timeline:
    """Gives each packet its times in the recording, which begin near 0 and grow within each track.

    Tracks keep their times to each other: what one track's jump shifts is shifted alike for the others,
    which jump at the same time or a little later. Gaps of up to a minute stay, as something was lost there.
    """

    def __init__(self) -> None:
        self._offsets: list[int] = []  # of each clock that the stream has had, to the recording's
        self._tracks: dict[int, _Track] = {}
        self._end = 0  # the latest decoding time so far

    def place(self, packet: Packet) -> tuple[int, int] | None:
        """The packet's `(pts, dts)` in the recording; None when it has no time and follows none."""
        raw = packet.dts if packet.dts is not None else packet.pts
        track = self._tracks.get(packet.pid)
        if raw is None:
            if track is None:
                return None
            raw = track.raw + track.step
        if track is None:
            track = self._tracks[packet.pid] = _Track(clock=self._begin(raw), raw=raw)
        elif not self._fits(track.clock, raw, track.last):
            track.clock = self._other_clock(track, raw)
        dts = raw + self._offsets[track.clock]
        if track.last is not None:
            dts = max(dts, track.last + _STEP)
        later = 0 if packet.pts is None or packet.dts is None else packet.pts - packet.dts
        track.step, track.raw, track.last = max(raw - track.raw, 1), raw, dts
        self._end = max(self._end, dts)
        return max(dts, raw + self._offsets[track.clock] + later), dts

    def _begin(self, raw: int) -> int:
        """The clock of a new track."""
        if not self._offsets:
            self._offsets.append(-raw)
        newest = len(self._offsets) - 1
        return newest if self._fits(newest, raw, self._end, early=_GAP) else self._new_clock(raw)

    def _other_clock(self, track: _Track, raw: int) -> int:
        """The clock that a track goes on with after a jump: one that another jumped to, or a new one."""
        newest = len(self._offsets)
        for clock in range(max(track.clock + 1, newest - _RECENT), newest):
            if self._fits(clock, raw, track.last):
                return clock
        return self._new_clock(raw)

    def _new_clock(self, raw: int) -> int:
        self._offsets.append(self._end + _FRAME - raw)
        return len(self._offsets) - 1

    def _fits(self, clock: int, raw: int, last: int | None, *, early: int = _DISORDER) -> bool:
        """Whether a time of this clock can follow the last one."""
        return last is None or -early <= raw + self._offsets[clock] - last <= _GAP


class _Track:
    def __init__(self, *, clock: int, raw: int) -> None:
        self.clock = clock
        self.raw = raw
        self.step = 1
        self.last: int | None = None
