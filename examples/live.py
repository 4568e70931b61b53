"""Send video with sound through a live filter, change the filter on the way, and save what comes back."""

import asyncio
from pathlib import Path

import numpy as np

from livepeer.client import Gateway, LiveSession

FPS, SECONDS, RATE = 30, 3, 48_000


async def send(session: LiveSession) -> None:
    media = session.publish(fps=FPS)
    tone = 0.1 * np.sin(np.arange(RATE // FPS) * 2 * np.pi * 450 / RATE).astype(np.float32)
    for number in range(FPS * SECONDS):
        frame = np.zeros((360, 640, 3), np.uint8)
        frame[:, number * 4 % 560 :][:, :80] = (255, 140, 0)  # a bar that wanders
        await media.write_frame(frame)
        await media.write_frame(tone)  # as long as the picture, and 15 of its waves
        if number == FPS:
            await session.control.write({"effect": "gray"})
        await asyncio.sleep(1 / FPS)


async def main() -> None:
    async with Gateway() as gw:
        async with gw.live("video-filter", params={"effect": "invert"}) as session:
            saving = asyncio.create_task(session.subscribe().save(Path("filtered.mp4")))
            await send(session)
        print(f"saved {await saving}")
        async for event in session.events():
            print(event)


asyncio.run(main())
