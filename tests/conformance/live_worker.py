"""A live worker in a process of its own, to be killed, stopped and slowed: `python live_worker.py JSON`.

The argument is a JSON object: options of `running`, such as `orch_url`, `secret`, `name`. It prints a line
when it is registered, where it is to be.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from livepeer.runner import HTTPError, LivePipeline, running
from livepeer.trickle.media import VideoFrame


class Passing(LivePipeline):
    """Gives frames back as they are.

    `params`: `delay` and `first_delay` in seconds a frame; `refuse`, why it doesn't start.
    """

    def on_stream_start(self, params: dict[str, Any]) -> None:
        if "refuse" in params:
            raise HTTPError(422, params["refuse"])
        self.params = params
        self.frames = 0
        self.emit_event({"type": "begun"})

    def process_video(self, frame: VideoFrame) -> VideoFrame:
        self.frames += 1
        delay = self.params.get("delay", 0)
        if self.frames == 1:
            delay = self.params.get("first_delay", delay)
        time.sleep(delay)
        return frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.params |= params
        self.emit_event({"type": "params", **params})

    def on_stream_stop(self) -> None:
        self.emit_event({"type": "stopped", "frames": self.frames})


async def main(settings: dict[str, Any]) -> None:
    async with running(Passing(), capacity=100, tls="insecure", **settings) as server:
        if "orch_url" in settings:
            await server.registered()
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
