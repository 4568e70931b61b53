"""Send video through a live filter, change the filter on the way, and save what comes back."""

import asyncio
from pathlib import Path

import numpy as np

from livepeer.client import Gateway, LiveSession

FPS, SECONDS = 30, 3


async def send(session: LiveSession) -> None:
    video = session.publish(fps=FPS)
    for number in range(FPS * SECONDS):
        frame = np.zeros((360, 640, 3), np.uint8)
        frame[:, number * 4 % 560 :][:, :80] = (255, 140, 0)  # a bar that wanders
        await video.write_frame(frame)
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
