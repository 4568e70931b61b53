"""A worker that passes bytes through: a bare aiohttp application, without anything of the SDK.

A process of its own. It reads one line of JSON (`orch`, `secret`, `app`), registers as a persistent live
runner, prints a line, and leaves when its input ends. ``POST /live`` opens a session's channels; `params` may
say ``{"delay": seconds}``, how much later each piece goes out than it came in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

NAMES = ("in", "out", "control", "events", "bulk")
_LINGER = 0.4  # seconds in which a reader fetches the rest before the channel is closed
_AHEAD = 0.02  # seconds before a segment that isn't there is asked for again

Piece = tuple[float, bytes | None]  # when it may go out, and the bytes; None ends the segment


class Worker:
    """The application, its registration and its sessions."""

    def __init__(self, http: aiohttp.ClientSession, orch: str, secret: str) -> None:
        self.http = http
        self.orch = orch
        self.secret = secret
        self.tasks: set[asyncio.Task[None]] = set()

    async def live(self, request: web.Request) -> web.Response:
        """Open the channels of a session and begin to pass bytes."""
        asked = await request.json()
        callbacks = request.headers["Livepeer-Session-Control"]
        token = request.headers["Livepeer-Session-Token"]
        wanted = [
            {"name": name, "mime_type": "video/MP2T" if name in ("in", "out") else "application/json"}
            for name in NAMES
        ]
        async with self.http.post(
            f"{callbacks}/channels", json={"channels": wanted}, headers={"Livepeer-Session-Token": token}
        ) as answer:
            answer.raise_for_status()
            made = {one["name"]: one for one in (await answer.json())["channels"]}
        inner = {name: one.get("internal_url") or one["url"] for name, one in made.items()}
        delay = float((asked.get("params") or {}).get("delay", 0))
        task = asyncio.create_task(self.run(inner["in"], inner["out"], delay))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        told = {"publish": "in", "subscribe": "out", "control": "control", "events": "events", "bulk": "bulk"}
        urls = {f"{role}_url": made[name]["url"] for role, name in told.items()}
        return web.json_response({"manifest_id": request.headers["Livepeer-Session-Id"], **urls})

    async def run(self, source: str, target: str, delay: float) -> None:
        """Pass segments on until the input's channel ends, then end the output's."""
        line: asyncio.Queue[Piece] = asyncio.Queue()
        reading = asyncio.create_task(self.read(source, line, delay))
        try:
            number = 0
            while not (reading.done() and line.empty()):
                first = await line.get()
                if first[1] is None:  # an empty segment, or the end
                    continue
                async with self.http.post(f"{target}/{number}", data=_segment(first, line)) as answer:
                    await answer.read()
                number += 1
            await asyncio.sleep(_LINGER)
            async with self.http.delete(target) as answer:
                await answer.read()
        except aiohttp.ClientError as error:
            print(f"passing on ended: {error!r}", file=sys.stderr)
        finally:
            reading.cancel()

    async def read(self, source: str, line: asyncio.Queue[Piece], delay: float) -> None:
        """Read segments one after the other, each asked for while the one before is read."""
        number = 0
        ahead = asyncio.ensure_future(self.get(f"{source}/{number}"))
        try:
            while (answer := await ahead) is not None:
                number += 1
                ahead = asyncio.ensure_future(self.get(f"{source}/{number}"))
                with contextlib.suppress(aiohttp.ClientError):
                    async for chunk in answer.content.iter_any():
                        line.put_nowait((time.monotonic() + delay, chunk))
                answer.release()
                line.put_nowait((0, None))
        finally:
            ahead.cancel()
            line.put_nowait((0, None))

    async def get(self, url: str) -> aiohttp.ClientResponse | None:
        """A segment, as soon as it begins; None when the channel is over."""
        while True:
            try:
                answer = await self.http.get(url)
            except aiohttp.ClientError:
                return None
            if answer.status == 200 and "Lp-Trickle-Closed" not in answer.headers:
                return answer
            answer.release()
            if answer.status != 470:
                return None
            await asyncio.sleep(_AHEAD)

    async def beat(self, body: dict[str, Any], secret: str) -> dict[str, Any]:
        """One heartbeat."""
        headers = {"Authorization": secret}
        async with self.http.post(f"{self.orch}/runners/heartbeat", json=body, headers=headers) as answer:
            answer.raise_for_status()
            told: dict[str, Any] = await answer.json()
            return told


async def _segment(first: Piece, line: asyncio.Queue[Piece]) -> AsyncIterator[bytes]:
    piece = first
    while piece[1] is not None:
        left = piece[0] - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        yield piece[1]
        piece = await line.get()


async def main() -> None:
    """Serve until the standard input ends."""
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(ssl=False, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        worker = Worker(http, told["orch"], told["secret"])
        app = web.Application()
        app.router.add_post("/live", worker.live)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        body = {
            "runner_url": f"http://127.0.0.1:{port}",
            "app": told["app"],
            "mode": "persistent",
            "status": "ready",
            "capacity": 100,
            "price_info": {"price": 0, "currency": "usd", "unit": "hour"},
        }
        known = await worker.beat(body, told["secret"])
        body["runner_id"] = known["runner_id"]
        print(json.dumps({"ready": known["runner_id"]}), flush=True)
        gone = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        while not gone.done():
            await asyncio.wait({gone}, timeout=5)
            await worker.beat(body, known["heartbeat_secret"])
        for task in worker.tasks:
            task.cancel()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
