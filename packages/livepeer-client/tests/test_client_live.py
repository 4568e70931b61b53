"""Live sessions, with a worker that opens real trickle channels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    LivepeerError,
    NoOrchestratorError,
    OrchestratorError,
    ResponseError,
    SessionEnded,
)


@pytest.fixture
async def gw(orch: Any) -> Any:
    async with Gateway(orch_url=orch.url) as gateway:
        yield gateway


async def test_a_session_from_start_to_end(orch: Any, gw: Gateway) -> None:
    session = gw.live("live", model="noop", params={"prompt": "a"}, request_id="mine", stream_id="s")
    assert session.status == "new"
    async with session:
        assert session.status == "live"
        assert session.raw["asked"] == {
            "model_id": "noop",
            "params": {"prompt": "a"},
            "gateway_request_id": "mine",
            "stream_id": "s",
        }
        assert session.manifest_id.startswith("m-")
        assert session.orchestrator == orch.url
        assert orch.last("live").headers["X-Request-Id"] == session.request_id == "mine"
        await session.control.write({"prompt": "b"})
        await session.update({"prompt": "c"})
        got = []
        async for event in session.events():
            got.append(event["got"])
            if len(got) == 2:
                break
        assert got == [{"prompt": "b"}, {"prompt": "c"}]
        stats = session.stats()
        assert (stats.control.frames, stats.events.frames, stats.data.frames) == (2, 2, 0)
    assert session.status == "ended"
    assert not orch.sessions
    assert not orch.trickle.channel_names()


async def test_awaiting_opens_and_close_closes(orch: Any, gw: Gateway) -> None:
    session = await gw.live("live")
    assert orch.sessions
    await session.close()
    await session.close()
    assert not orch.sessions
    with pytest.raises(SessionEnded, match="makes another"):
        await session
    with pytest.raises(SessionEnded):
        await session.control.write({})


async def test_events_end_when_the_worker_ends_them(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        await session.control.write(1)
        assert await anext(session.events) == {"got": 1}
        await session.control.write("end")
        assert [event async for event in session.events] in ([], [{"got": "end"}])
        assert session.status == "ended"
    assert not orch.sessions


async def test_a_reader_that_waits_ends_with_the_session(orch: Any, gw: Gateway) -> None:
    session = await gw.live("live")

    async def read() -> list[Any]:
        return [event async for event in session.events]

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await session.control.write(1)
    await orch.wait_async(lambda: session.stats().events.frames, "the event is there")
    await session.close()
    assert sorted(await asyncio.gather(*readers)) == [[], [], [{"got": 1}]]


async def test_a_body_that_raises_stops_the_session(orch: Any, gw: Gateway) -> None:
    with pytest.raises(KeyError):
        async with gw.live("live"):
            raise KeyError
    assert not orch.sessions


@pytest.mark.parametrize("missing", ["control", "events", "data", "publish", "subscribe"])
async def test_a_channel_that_is_missing_says_so(orch: Any, gw: Gateway, missing: str) -> None:
    pytest.importorskip("av")
    lacks = {"publish": "in", "subscribe": "out"}.get(missing, missing)

    async def use(session: Any) -> None:
        if missing == "control":
            await session.control.write({})
        elif missing in ("publish", "subscribe"):
            getattr(session, missing)()
        else:
            await anext(getattr(session, missing))

    session = gw.live("live", params={"lacks": [lacks]})
    with pytest.raises(ConfigurationError, match="connected"):
        await use(session)
    async with session:
        with pytest.raises(ConfigurationError, match=missing):
            await use(session)
        if missing != "events":
            assert session.status == "live"
    assert not orch.sessions


async def test_nothing_works_before_it_is_connected(gw: Gateway) -> None:
    session = gw.live("live")
    for use in (
        lambda: session.manifest_id,
        lambda: session.raw,
        lambda: session.orchestrator,
        lambda: session.channel("control"),
        lambda: session.websocket("/ws"),
    ):
        with pytest.raises(ConfigurationError, match="connected yet"):
            use()
    with pytest.raises(ConfigurationError, match="connected yet"):
        await session.request("GET", "/x")
    await session.close()
    with pytest.raises(SessionEnded):
        await session


async def test_raw_channels(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        channel = session.channel("publish")
        assert channel.url == session.raw["publish_url"]
        assert session.channel(channel.url).url == channel.url
        publisher = channel.publisher(mime_type="application/x")
        await publisher.write(b"one")
        subscriber = channel.subscriber()
        async for segment in subscriber:
            assert await segment.read() == b"one"
            break
        await subscriber.aclose()
        await publisher.close(delete=False)
        with pytest.raises(ConfigurationError, match="publish, subscribe, control, events, data"):
            session.channel("nothing")


async def test_requests_inside_a_session(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        response = await session.request(
            "PUT", "/a/b?x=1%202&y=%2F", input={"n": 1}, headers={"X-Mine": "yes"}
        )
        assert (response.status, response.app, response.request_id) == (200, "live", session.request_id)
        seen = response.data
        assert (seen["method"], seen["path"], seen["json"]) == ("PUT", "a/b", {"n": 1})
        assert seen["query"] == "x=1%202&y=%2F"
        assert seen["headers"]["X-Mine"] == "yes"
        with pytest.raises(ConfigurationError, match="escape"):
            await session.request("GET", "/ü")
    with pytest.raises(OrchestratorError, match="gone"):
        await session.request("GET", "/a")


async def test_a_websocket_inside_a_session(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        async with session.websocket("/ws") as socket:
            await socket.send_str("abc")
            assert await socket.receive_str() == "cba"
        with pytest.raises(CapabilityError, match="answered 200 instead of opening a WebSocket"):
            async with session.websocket("/no-socket"):
                pass
        socket = await session.websocket("/ws")
        await socket.close()


async def test_an_application_with_sessions_and_no_channels(orch: Any, gw: Gateway) -> None:
    orch.apps["p-echo"].handler = _no_live
    async with gw.live("p-echo") as session:
        assert session.raw == {}
        assert session.manifest_id in orch.sessions
        assert (await session.request("POST", "/any", input=b"x")).data == b"x"
        with pytest.raises(ConfigurationError, match="no control"):
            await session.control.write(1)
    assert not orch.sessions


async def _no_live(_orch: Any, request: Any) -> Any:
    from aiohttp import web

    if request.match_info["tail"] == "live":
        return web.Response(status=404, text="Not Found")
    return web.Response(body=await request.read(), headers={"Content-Type": "application/octet-stream"})


@pytest.mark.parametrize(
    ("params", "kind", "says"),
    [
        ({"status": 422}, CapabilityError, "refused"),
        ({"status": 500}, CapabilityError, "500"),
        ({"answer": {"control_url": 7}}, OrchestratorError, "control URL"),
        ({"answer": {"events_url": "file:///etc/passwd"}}, OrchestratorError, "not an http"),
    ],
)
async def test_a_start_that_fails_stops_the_session(
    orch: Any, gw: Gateway, params: Any, kind: Any, says: str
) -> None:
    with pytest.raises(kind, match=says):
        async with gw.live("live", params=params):
            pass
    await orch.wait_async(lambda: not orch.sessions, "the session is stopped")


async def test_an_answer_that_is_no_json_stops_the_session(orch: Any, gw: Gateway) -> None:
    with pytest.raises(ResponseError, match="JSON object"):
        async with gw.live("p-tokens", path="/live"):
            pass
    await orch.wait_async(lambda: not orch.sessions, "the session is stopped")


async def test_what_cannot_be_live(orch: Any, gw: Gateway) -> None:
    with pytest.raises(CapabilityNotFound, match="live"):
        await gw.live("lvie")
    with pytest.raises(NoOrchestratorError, match="single-shot"):
        await gw.live("echo")
    with pytest.raises(ConfigurationError, match="params"):
        gw.live("live", params=[1])  # type: ignore[arg-type]


async def test_the_path_of_the_start(orch: Any, gw: Gateway) -> None:
    orch.apps["live"].metadata = '{"livepeer": 1, "live": "/elsewhere"}'
    async with gw.live("live") as session:
        # `inspect` answers there, with an object that names no channels.
        assert orch.last("live").path.endswith("/app/elsewhere")
        assert session.raw["path"] == "elsewhere"
    async with gw.live("live", path="/live") as session:
        await session.control.write(1)


async def test_closing_when_the_orchestrator_is_gone(orch: Any) -> None:
    gateway = Gateway(orch_url=orch.url)
    session = await gateway.live("live")
    await session.control.write(1)
    await gateway.aclose()
    assert session.status == "ended"
    assert not orch.sessions
    await session.close()


async def test_a_session_that_is_never_closed_ends_with_the_loop(orch: Any, silent: Any) -> None:
    def leave() -> None:
        silent(
            """
            import asyncio, sys
            from livepeer.client import Gateway
            gw = Gateway(orch_url=sys.argv[1])
            async def main():
                session = await gw.live("live")
                await session.control.write(1)
                await anext(session.events)
            asyncio.run(main())
            """,
            orch.url,
        )

    await asyncio.to_thread(leave)
    await orch.wait_async(lambda: not orch.sessions and orch.connections == 0, "the session is stopped")
    assert orch.reserved == 1


async def test_ctrl_c_in_a_session(orch: Any, script: Any) -> None:
    def interrupt() -> Any:
        running = script(
            """
            import asyncio, sys
            from livepeer.client import Gateway
            async def main():
                async with Gateway(orch_url=sys.argv[1]).live("live") as session:
                    await session.control.write(1)
                    async for event in session.events:
                        print("live", flush=True)
            asyncio.run(main())
            """,
            orch.url,
        )
        running.wait_line("live")
        running.interrupt()
        return running.finish(10)

    done = await asyncio.to_thread(interrupt)
    assert done.err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Warning" not in done.err
    await orch.wait_async(lambda: not orch.sessions and orch.connections == 0, "the session is stopped")


async def test_an_orchestrator_that_dies_during_a_session(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        orch.sessions.clear()
        for name in orch.trickle.channel_names():
            orch.trickle.close_channel(name)
        orch.drop_connections()
        assert [event async for event in session.events] == []
        assert session.status == "ended"
        with pytest.raises((LivepeerError, ConnectionFailed)):
            await session.control.write(1)


async def test_media_goes_through_a_session(orch: Any, gw: Gateway) -> None:
    pytest.importorskip("av")
    numpy = pytest.importorskip("numpy")
    async with gw.live("live") as session:
        # The worker of these tests has no codec: what is written is read back from its own channel.
        media_in = session.publish(fps=10)
        assert session.publish(fps=10) is media_in
        with pytest.raises(ConfigurationError, match="session has one"):
            session.publish(fps=20)
        session._session.urls["subscribe"] = session.raw["publish_url"]
        output = session.subscribe()
        frames: list[Any] = []

        async def read() -> None:
            async for frame in output.frames(drop=None):
                frames.append(frame)

        reading = asyncio.create_task(read())
        for number in range(12):
            await media_in.write_frame(numpy.full((64, 64, 3), number * 20, numpy.uint8))
        await session.close()
        await reading
        assert len(frames) == 12
        assert frames[3].array.shape == (64, 64, 3)
        assert session.stats().media_in.frames == session.stats().media_out.frames == 12
    assert not orch.sessions
