"""Pictures out of PES packets: mostly one to one, but some senders cut otherwise."""

from __future__ import annotations

from .slices import Picture, begins_with_start_code, has_parameter_sets, scan
from .units import Unit

__all__ = ["VIDEO_CODECS", "VideoFramer"]

VIDEO_CODECS = frozenset(("h264", "hevc"))
_LIMIT = 64 * 1024 * 1024  # bytes; no picture is as large
_LONGEST_STEP = 10 * 90_000


class VideoFramer:
    """Finds the pictures of one stream.

    A PES is taken to be whole pictures, which are handed out at once, until one begins in the midst of a
    picture: from then on a picture is complete when the next one begins. A picture without a time of its own
    gets the one that follows from those before, unless the stream's pictures are reordered.
    """

    def __init__(self, codec: str) -> None:
        self.lost: int = 0
        """Pictures of which a part is missing, or was handed out alone."""
        self._codec = codec
        self._aligned = True
        self._held = b""  # parameter sets that came before their picture; or a picture that isn't complete
        self._times: list[tuple[int, int | None, int | None]] = []  # where in it PES begin, and their times
        self._broken = False
        self._guess = _Guess()

    def feed(
        self, data: bytes, pts: int | None, dts: int | None, *, random_access: bool, discontinuity: bool
    ) -> list[Unit]:
        """See `Framer`."""
        if discontinuity:
            self._drop()
            self._broken = True
        if not data:
            return []
        if self._aligned and (pts is None or not begins_with_start_code(data)):
            pictures = scan(data, self._codec)
            if not begins_with_start_code(data) or (pictures and not pictures[0].whole):
                self._aligned = False
                if not self._held:
                    # The picture that was handed out before isn't whole, no other shall be cut; and whether
                    # this PES' time is that of the first one in it can't be told.
                    self.lost += 1
                    self._broken, pts, dts = True, None, None
        if self._aligned:
            return self._pictures(data, pts, dts, random_access)
        self._hold(data, pts, dts)
        return self._complete_pictures()

    def flush(self) -> list[Unit]:
        """See `Framer`."""
        return [] if self._aligned else self._complete_pictures(final=True)

    def _pictures(self, data: bytes, pts: int | None, dts: int | None, random_access: bool) -> list[Unit]:
        """Those of one PES, which is whole pictures."""
        pictures = scan(data, self._codec)
        if not pictures and has_parameter_sets(data, self._codec):
            self._hold(data, pts, dts)  # they belong to the next one, which would be useless without
            return []
        if self._held:
            data, self._held, self._times = self._held + data, b"", []
            pictures = scan(data, self._codec)
        if len(pictures) <= 1:
            is_keyframe = random_access or (bool(pictures) and pictures[0].is_key)
            return [self._unit(data, pts, dts, is_keyframe)]
        units, ends = [], [picture.begin for picture in pictures[1:]] + [len(data)]
        begin = 0
        for picture, end in zip(pictures, ends, strict=True):
            is_keyframe = picture.is_key or (random_access and begin == 0)
            units.append(self._unit(data[begin:end], pts, dts, is_keyframe))
            begin, pts, dts = end, None, None
        return units

    def _complete_pictures(self, *, final: bool = False) -> list[Unit]:
        """Those of which the end is there, of a sender that cuts anywhere."""
        data = self._held
        pictures = scan(data, self._codec)
        if pictures and not pictures[0].whole:
            pictures = pictures[1:]  # the rest of one whose begin was lost
        ends = [picture.begin for picture in pictures[1:]] + ([len(data)] if final else [])
        units = [
            self._unit(data[picture.begin : end], *self._times_of(picture), picture.is_key)
            for picture, end in zip(pictures, ends, strict=False)
        ]
        done = len(data) if final else pictures[-1].begin if pictures else 0
        self._held = data[done:]
        self._times = [(at - done, pts, dts) for at, pts, dts in self._times]
        return units

    def _times_of(self, picture: Picture) -> tuple[int | None, int | None]:
        """A PES' times are those of the first picture that begins in it."""
        pts = dts = None
        while self._times and self._times[0][0] <= picture.begin:
            _, pts, dts = self._times.pop(0)
        return pts, dts

    def _unit(self, data: bytes, pts: int | None, dts: int | None, is_keyframe: bool) -> Unit:
        if pts is None:
            pts, dts = self._guess.next()
        else:
            self._guess.given(pts, dts)
        broken, self._broken = self._broken, False
        return Unit(self._codec, data, pts, dts, is_keyframe, broken)

    def _hold(self, data: bytes, pts: int | None, dts: int | None) -> None:
        if len(self._held) > _LIMIT:
            self._drop()
        self._times.append((len(self._held), pts, dts))
        self._held += data

    def _drop(self) -> None:
        if self._held:
            self.lost += 1
        self._held, self._times = b"", []
        self._guess = _Guess()


class _Guess:
    """The times of pictures that bring none, from the distance of those that do."""

    def __init__(self) -> None:
        self._last: int | None = None  # the last one's, given or guessed
        self._given: int | None = None  # the last one that was given
        self._since = 0  # pictures since then
        self._step: int | None = None
        self._reordered = False

    def given(self, pts: int, dts: int | None) -> None:
        """The times of the next picture."""
        time = pts if dts is None else dts
        self._reordered |= pts != time
        if self._given is not None and 0 < time - self._given <= _LONGEST_STEP:
            self._step = (time - self._given) // (self._since + 1)
        self._last = self._given = time
        self._since = 0

    def next(self) -> tuple[int | None, int | None]:
        """What they may be for the next picture; None where nothing tells."""
        self._since += 1
        if self._last is None or self._step is None:
            return None, None
        self._last += self._step
        return None if self._reordered else self._last, self._last
