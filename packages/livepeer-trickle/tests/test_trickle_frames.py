"""Frames of sound: arrays and PyAV's frames, each made of the other."""

from __future__ import annotations

from typing import Any

import pytest

from livepeer.trickle import MediaError

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import AudioFrame  # noqa: E402


def tone(samples: int, channels: int, dtype: str = "float32") -> Any:
    """A sine of another height in each channel."""
    phase = np.arange(samples)[:, None] * (np.arange(channels) + 1) * 0.05
    wave = np.sin(phase) * 0.5
    return (wave * 32768).astype("int16") if dtype == "int16" else wave.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_an_array_becomes_a_raw_frame_and_is_the_same_again(dtype: str, channels: int) -> None:
    array = tone(480, channels, dtype)
    frame = AudioFrame.from_array(array, 44_100, 1.5)
    assert (frame.samples, frame.channels, frame.sample_rate, frame.timestamp) == (480, channels, 44_100, 1.5)
    assert frame.duration == pytest.approx(480 / 44_100)
    raw = frame.raw
    assert (raw.samples, raw.sample_rate, len(raw.layout.channels)) == (480, 44_100, channels)
    again = AudioFrame(raw, 1.5)
    assert again.array.dtype == np.float32
    assert again.array.shape == (480, channels)
    np.testing.assert_allclose(again.array, tone(480, channels), atol=1e-4)
    np.testing.assert_allclose(frame.array, again.array)
    assert frame.raw is raw


@pytest.mark.parametrize("channels", [2, 8])
@pytest.mark.parametrize("name", ["u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"])
def test_raw_frames_of_every_sample_format(name: str, channels: int) -> None:
    source = AudioFrame.from_array(tone(256, channels), 48_000).raw
    (raw,) = av.AudioResampler(name, source.layout, 48_000).resample(source)
    frame = AudioFrame(raw)
    assert (frame.samples, frame.channels) == (256, channels)
    np.testing.assert_allclose(frame.array, tone(256, channels), atol=0.01 if name.startswith("u8") else 1e-4)


def test_one_channel_may_be_a_row_and_a_replacement_keeps_its_time() -> None:
    frame = AudioFrame.from_array(tone(100, 1)[:, 0], 48_000, 2.0)
    assert frame.array.shape == (100, 1)
    other = frame.replace(tone(50, 2))
    assert (other.timestamp, other.sample_rate, other.samples, other.channels) == (2.0, 48_000, 50, 2)
    assert repr(other) == "<AudioFrame 50 samples of 2 channels at 48000 Hz at 2.0 s>"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 2), np.float32),
        np.zeros((0, 2), np.float32),
        np.zeros((2, 9), np.float32),
        [0.0, 0.5],
    ],
)
def test_what_is_no_sound(array: Any) -> None:
    with pytest.raises(MediaError, match=r"\(samples, channels\)"):
        AudioFrame.from_array(array, 48_000)


def test_a_sample_rate_that_cannot_be() -> None:
    with pytest.raises(MediaError, match="48000"):
        AudioFrame.from_array(tone(8, 1), 0)
