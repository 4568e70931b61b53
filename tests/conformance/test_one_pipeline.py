"""One `LivePipeline`, served once, for all three kinds of live sessions at the same time."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from harness import Network, Worker, until
from live_harness import FPS, number_of, picture

from livepeer.client import Gateway, LiveSession
from livepeer.runner import LivePipeline, running


class Counting(LivePipeline):
    """Gives every picture back; counts what is called, on the served instance."""

    capacity = 3

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def setup(self) -> None:
        self.calls.append(("setup", ""))

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.who = params["who"]
        self.calls.append(("start", self.who))

    def process_video(self, frame: Any) -> Any:
        self.emit_data({"who": self.who})
        return frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.emit_event({"who": self.who, **params})

    def on_stream_stop(self) -> None:
        self.calls.append(("stop", self.who))


async def test_three_kinds_of_callers_at_once(ai_network: Network) -> None:
    pipeline, name = Counting(), f"live-{uuid.uuid4().hex[:8]}"
    options: Any = {"orch_url": ai_network.url, "secret": ai_network.secret, "tls": "insecure"}
    async with (
        running(pipeline, name=name, port=ai_network.port_of("noop"), **options) as server,
        Worker(ai_network) as worker,
        Gateway(orch_url=ai_network.url) as gw,
    ):
        byoc = await worker.register_byoc(url=server.url, capacity=3)
        await server.registered()
        asked = {
            "live-runner": gw.live(name, params={"who": "live-runner"}),
            "byoc": gw.live(byoc, params={"who": "byoc"}),
            "lv2v": gw.live("live-video-to-video", model="noop", params={"who": "lv2v"}),
        }
        all_open = asyncio.Barrier(3)
        seen = await asyncio.gather(*(_use(who, session, all_open) for who, session in asked.items()))
        await until(lambda: server.health()["in_use"] == 0)
    for who, (frames, events) in zip(asked, seen, strict=True):
        assert frames == list(range(45))
        assert {"who": who, "n": 1} in events
        assert [event.get("type") for event in events if "n" not in event] in ([], ["ended"])
    assert sorted(pipeline.calls) == sorted(
        [("setup", ""), *((kind, who) for who in asked for kind in ("start", "stop"))]
    )


async def _use(
    who: str, opening: LiveSession, all_open: asyncio.Barrier
) -> tuple[list[int | None], list[Any]]:
    """Send numbered pictures and one parameter; what came back."""
    async with opening as session:
        await all_open.wait()
        output = session.subscribe()

        async def read() -> list[int | None]:
            return [number_of(frame) async for frame in output.frames(drop=None)]

        reading = asyncio.create_task(read())
        for number in range(45):
            await session.publish(fps=FPS).write_frame(picture(number))
            if number == 20:
                await session.update({"n": 1})
    return await reading, [event async for event in session.events]
