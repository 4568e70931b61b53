"""From sound to encoded sound: synchronous, for a worker thread."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np

from .bitstream import adts
from .encoding import check_codec, open_encoder, speaking_of
from .frames import LAYOUTS, AudioFrame
from .packets import CLOCK, Packet

__all__ = ["JITTER", "AudioEncoder"]

JITTER = round(0.03 * CLOCK)
"""Ticks by which a timestamp may differ from what the samples before it say, without a gap or an overlap."""
_LONGEST_SILENCE = CLOCK  # a gap up to this is filled; after a longer one the encoder begins anew
_SMOOTHING = 32  # frames over which the clock of the samples follows that of the timestamps
_DEFAULTS = {"libopus": {"frame_duration": "20"}}
_MAX_CHANNELS = {
    "aac": 6,
    "opus": 2,
}  # more are mixed down; MPEG-TS names no others for Opus without a mapping


class AudioEncoder:
    """Encodes sound of any format and rate as one stream without gaps.

    The time of each encoded frame counts samples, and follows the given timestamps slowly: neither their
    jitter nor a sound card that runs a little fast is heard. The encoder's delay is taken out of the times.

    Args:
        encoder: libavcodec's name of the encoder.
        sample_rate: In Hz; the nearest that the encoder knows is used.
        bitrate: Bits per second; the encoder's own choice when None.
        options: More options of the encoder.

    Raises:
        MediaError: There is no such encoder.
    """

    def __init__(
        self,
        encoder: str,
        *,
        sample_rate: int,
        bitrate: int | None,
        options: Mapping[str, str] | None,
    ) -> None:
        self.codec: str = check_codec(encoder, "audio")
        rates = av.codec.Codec(encoder, "w").audio_rates or [sample_rate]
        self._rate = min(rates, key=lambda rate: (abs(rate - sample_rate), -rate))
        self._encoder = encoder
        self._bitrate = bitrate
        self._options = dict(options or {})
        self._context: Any = None
        self._header: Any = None
        self._resampler: Any = None
        self._source: tuple[Any, ...] = ()  # what the resampler was made for
        self._fifo: Any = None
        self._begin = 0.0  # ticks, of the first sample
        self._next = 0.0  # ticks, of the next sample to come
        self._samples = 0  # given to the encoder

    def encode(self, frame: av.AudioFrame, ticks: int) -> list[Packet]:
        """Encode a piece of sound whose first sample is heard at `ticks`/90000 s. Raises `MediaError`."""
        packets: list[Packet] = []
        gap = ticks - self._next
        if self._context is not None and gap > _LONGEST_SILENCE:
            packets = self.finish()
        if self._context is None:
            self._open(frame)
            self._begin = self._next = float(ticks)
        elif gap > JITTER:
            self._silence(gap)
        elif gap < -JITTER:
            left = AudioFrame(frame).array[round(-gap * frame.sample_rate / CLOCK) :]
            if not len(left):
                return packets
            frame = AudioFrame.from_array(left, frame.sample_rate).raw
        else:
            self._begin += gap / _SMOOTHING
            self._next += gap / _SMOOTHING
        with speaking_of("encode sound"):
            self._push(frame)
            self._next += frame.samples * CLOCK / frame.sample_rate
            return packets + self._drain(self._context.frame_size or 1024)

    def finish(self) -> list[Packet]:
        """What is still held, to the last sample; the next frame begins anew. Raises `MediaError`."""
        if self._context is None:
            return []
        with speaking_of("finish encoding sound"):
            self._end_resampler()
            packets = self._drain(1)
            packets += [self._packet(packet) for packet in self._context.encode(None)]
        self._context = self._fifo = None
        return packets

    def _open(self, frame: av.AudioFrame) -> None:
        context: Any = av.CodecContext.create(self._encoder, "w")
        channels = len(frame.layout.channels)
        # By number, as raw sound often doesn't say which channel is which.
        layout = LAYOUTS[min(channels, _MAX_CHANNELS[self.codec]) - 1]
        context.sample_rate, context.layout = self._rate, layout
        context.format = next(
            (known for known in context.codec.audio_formats if known.name.startswith("flt")),
            context.codec.audio_formats[0],
        )
        context.time_base = Fraction(1, self._rate)
        if self._bitrate is not None:
            context.bit_rate = self._bitrate
        open_encoder(context, _DEFAULTS.get(self._encoder, {}), self._options)
        self._header = adts(bytes(context.extradata or b"")) if self.codec == "aac" else None
        self._context, self._fifo, self._samples = context, av.AudioFifo(), 0

    def _push(self, frame: av.AudioFrame) -> None:
        """Put sound into the fifo in the encoder's format."""
        context = self._context
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source == (context.format.name, context.layout.name, self._rate):
            self._end_resampler()
            self._store(frame)
            return
        if source != self._source:
            self._end_resampler()
            self._resampler = av.AudioResampler(context.format, context.layout, self._rate)
            self._source = source
        pts = frame.pts
        try:
            frame.pts = None  # the resampler would follow its jumps
            for made in self._resampler.resample(frame):
                self._store(made)
        finally:
            frame.pts = pts

    def _store(self, frame: av.AudioFrame) -> None:
        pts = frame.pts
        try:
            frame.pts = None
            self._fifo.write(frame)
        finally:
            frame.pts = pts

    def _end_resampler(self) -> None:
        """Take out the last samples, which its filter holds."""
        resampler, self._resampler, self._source = self._resampler, None, ()
        if resampler is not None:
            for made in resampler.resample(None):
                self._store(made)

    def _silence(self, gap: float) -> None:
        with speaking_of("fill a gap in the sound"):
            self._end_resampler()
            samples = round(gap * self._rate / CLOCK)
            silence = AudioFrame.from_array(np.zeros((samples, 1), np.float32), self._rate).raw
            self._push(silence)
            self._next += samples * CLOCK / self._rate

    def _drain(self, least: int) -> list[Packet]:
        size = self._context.frame_size or 1024
        packets = []
        while self._fifo.samples >= least:
            frame = self._fifo.read(size, partial=True)
            frame.pts, frame.time_base = self._samples, Fraction(1, self._rate)
            self._samples += frame.samples
            packets += [self._packet(packet) for packet in self._context.encode(frame)]
        return packets

    def _packet(self, packet: Any) -> Packet:
        data = bytes(packet)
        if self._header is not None:
            data = self._header(data) + data
        # The encoder's times begin before 0 by its delay.
        ticks = round(self._begin + packet.pts * CLOCK / self._rate)
        return Packet("audio", self.codec, data, ticks, ticks, True)
