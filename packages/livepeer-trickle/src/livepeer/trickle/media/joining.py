"""What a reader of frames begins with: the present segment from its key frame on, then what all get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from .decoding import AudioDecoder, Decoder, VideoDecoder, decode_all
from .frames import AudioFrame, VideoFrame
from .interleaving import Interleaver
from .packets import Packet
from .queues import BoundedQueue
from .worker import Worker

__all__ = ["Join", "Kind", "MediaFrame", "begin", "new_decoder"]

Kind: TypeAlias = Literal["video", "audio", "all"]
MediaFrame: TypeAlias = VideoFrame | AudioFrame


class Join(NamedTuple):
    """A reader begins here: between the packets before and after this in the decoder's queue.

    Attributes:
        kind: What it reads.
        queue: Its queue.
        packets: What came of the present segment before.
        anew: The kinds for which this decoding begins: until now nobody read them.
    """

    kind: Kind
    queue: BoundedQueue[Any]
    packets: list[Packet]
    anew: frozenset[str]


def new_decoder(kind: str) -> Decoder:
    """A decoder for a track of this kind."""
    return VideoDecoder() if kind == "video" else AudioDecoder()


async def begin(
    join: Join,
    decoders: dict[str, Decoder],
    worker: Worker,
    *,
    batch: int,
    merge: Interleaver | None,
    newest: Mapping[str, float],
    report: Callable[[MediaFrame], None],
) -> Callable[[MediaFrame], bool] | None:
    """Give a reader the frames of the present segment.

    Where decoding begins with this reader, the decoder that reads the segment stays, in `decoders`. Where it
    runs already, a second one catches up for a reader that wants every frame; another reader begins with the
    next frame.

    Args:
        join: The reader.
        decoders: The decoders that run, by kind.
        worker: Where they run.
        batch: How many packets to decode in one go.
        merge: What brings pictures and sound into order, for a reader of both, if it has that for itself.
        newest: The time of the last frame that everybody got, by kind.
        report: Called with each frame.

    Returns:
        What tells the frames that the reader wants from those that it has already; None if it wants all.
    """
    own = {kind: decoders.setdefault(kind, new_decoder(kind)) for kind in join.anew}
    if join.queue.lossless:
        own |= {packet.kind: new_decoder(packet.kind) for packet in join.packets if packet.kind not in own}
    elif join.kind == "all" and "video" in decoders and "video" not in own:
        own.pop("audio", None)  # video goes on with the next picture, and sound with it
    packets = [packet for packet in join.packets if packet.kind in own]
    order = merge or (Interleaver() if join.kind == "all" else None)
    given: set[tuple[type, float | None]] = set()

    async def give(frames: Iterable[MediaFrame]) -> None:
        for decoded in frames:
            now = asyncio.get_running_loop().time()
            ready = [decoded] if order is None else [*order.push(decoded, now), *order.ready(now, own)]
            for frame in ready:
                await hand_over(frame)

    async def hand_over(frame: MediaFrame) -> None:
        given.add((type(frame), frame.timestamp))
        report(frame)
        await join.queue.put(frame)

    for start in range(0, len(packets), batch):
        await give(await worker.submit(decode_all, own, packets[start : start + batch]))
    passing = {kind: decoder for kind, decoder in own.items() if decoder is not decoders.get(kind)}
    for kind, decoder in passing.items():
        # What it still holds comes from the other one too, if that has not given it already.
        held = await worker.submit(decoder.flush)
        await give(f for f in held if f.timestamp is not None and f.timestamp <= newest.get(kind, 0.0))
    if order is not None and order is not merge:
        for frame in order.drain():
            await hand_over(frame)
    return _Unknown(given) if passing else None


class _Unknown:
    """True for frames after those given: a decoder that reorders still holds some which another one gave."""

    def __init__(self, given: set[tuple[type, float | None]]) -> None:
        self._given = given

    def __call__(self, frame: MediaFrame) -> bool:
        if (type(frame), frame.timestamp) in self._given:
            return False
        # The first one that is unknown: times that come again later are another stream's.
        self._given = {known for known in self._given if known[0] is not type(frame)}
        return True
