"""The table of `livepeer.client.failover`, row by row, against orchestrators that are bare sockets and count.

Two of them have what is called, in this order. Up to the request that counts both answer as they should; then
the first one fails as the row says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from livepeer.client import Gateway, LivepeerError, Timeout, errors, failover
from livepeer.client.inputs import Body
from livepeer.client.routes import Call, LiveCall
from livepeer.client.stream import AsyncStreamResponse

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_places import WAYS, Asked, Failing, Place

INPUT = b'{"prompt":"' + b"x" * 3000 + b'"}'
GO = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
PLAIN = "Content-Type: text/plain\r\n"
FULL = '{"error": {"type": "Unavailable", "message": "All 2 places of it are taken."}}'
FAILED = "job not able to be processed, removing capability err="
DIAL = "dial tcp 127.0.0.1:9: connect: connection refused"
NO_NAME = "dial tcp: lookup worker: no such host"


def rows() -> list[tuple[str, str, str]]:
    """Each row of the table for each way to call: what happened, how it was called, what comes then."""
    found = []
    for line in (failover.__doc__ or "").splitlines():
        if line.count("|") == 2 and "How it was called" not in line:
            what, hows, then = (cell.strip() for cell in line.split("|"))
            for how in WAYS if hows == "all" else hows.split(", "):
                found.append((what, how, then))
    return found


# What happens to the request that counts


def says(status: int, text: str = "", fields: str = PLAIN) -> Failing:
    async def answer(_place: Place, asked: Asked) -> None:
        await asked.read()
        await asked.answer(status, text, fields)

    return answer


def go(status: int, text: str) -> Failing:
    return says(status, text + "\n", GO)


def worker(status: int, text: str) -> Failing:
    """A worker's own answer, as each orchestrator hands it on."""

    async def answer(place: Place, asked: Asked) -> None:
        if place.how == "byoc":
            await says(status, text + "\n", GO + "X-Metadata: \r\n")(place, asked)
        elif place.how == "lv2v":
            await go(500, f"live-video-to-video container returned 500: {status} {text}")(place, asked)
        else:
            await says(status, text, "Content-Type: application/json\r\n")(place, asked)

    return answer


def cut(share: float = 1.0, answer: bytes = b"", *, reset: bool = False) -> Failing:
    """Read so much of the body, answer so much, and close."""

    async def close(_place: Place, asked: Asked) -> None:
        await asked.read(share)
        asked.writer.write(answer)
        await asked.writer.drain()
        if reset:
            opened = asked.writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        asked.writer.transport.abort() if reset else asked.writer.close()
        asked.headers["connection"] = "gone"

    return close


def paused(answer: bytes) -> Failing:
    async def pause(place: Place, asked: Asked) -> None:
        await asked.read()
        asked.writer.write(answer)
        await place.gate.wait()
        asked.headers["connection"] = "gone"

    return pause


def redirect(status: int, to: Callable[[str], str]) -> Failing:
    async def answer(place: Place, asked: Asked) -> None:
        if asked.path.endswith("/"):
            await asked.read()
            await place.answer(asked)
        else:
            await says(status, "", f"Location: {to(asked.path)}\r\nX-Metadata: \r\n")(place, asked)

    return answer


def missing(status: int) -> Failing:
    """A worker without this path; over BYOC, with the path /run."""

    async def answer(place: Place, asked: Asked) -> None:
        if place.how == "byoc" and asked.path.endswith("/run"):
            await asked.read()
            await place.answer(asked)
        else:
            await worker(status, '{"detail": "No."}')(place, asked)

    return answer


def refusal(text: str) -> Failing:
    """What an orchestrator says when its request to the worker fails."""

    async def answer(place: Place, asked: Asked) -> None:
        if place.how == "byoc":
            await go(500, f'{FAILED}Post "http://127.0.0.1:9/it": {text}')(place, asked)
        elif place.how == "lv2v":
            await go(500, f'Post "http://127.0.0.1:9/live-video-to-video": {text}')(place, asked)
        else:
            await go(502, text)(place, asked)

    return answer


async def full(place: Place, asked: Asked) -> None:
    await (worker(503, "All 2 places of it are taken.") if place.how == "lv2v" else worker(503, FULL))(
        place, asked
    )


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Metadata: \r\nContent-Length: 100\r\n\r\n"
NO_CAPABILITY = "No capacity available for capability"
HAPPENING: dict[str, Failing | None] = {
    "the connection is refused": None,
    "TLS fails": None,
    "the certificate has changed": None,
    "no connection in time": None,
    "closed before the request was read": cut(0),
    "closed in the middle of the body": cut(0.5),
    "closed after the body, on a kept connection": cut(),
    "closed after the body": cut(),
    "reset after the body": cut(reset=True),
    "closed in the middle of the answer's head": cut(answer=HEAD[:40]),
    "no answer in first_byte seconds": paused(b""),
    "no answer in total seconds": paused(b""),
    "what comes is no HTTP": cut(answer=b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "closed in the middle of the result": cut(answer=HEAD + b"data: 1\n\n"),
    "a pause in the middle of the result": paused(HEAD + b": still here\n\n"),
    "404 runner not found": go(404, "runner not found"),
    "404 runner session not found": go(404, "runner session not found"),
    "503 no capacity available for runner": go(503, "no capacity available for runner"),
    "400 runner is not single-shot": go(400, "runner is not single-shot"),
    "502 the worker refuses the connection": refusal(DIAL),
    "500 the worker refuses the connection": refusal(DIAL),
    "502 the worker has no address": refusal(NO_NAME),
    "502 the worker broke off": refusal("EOF"),
    "500 the worker broke off": refusal("EOF"),
    "502 of a proxy, with such a text": says(502, DIAL),
    "503 of a proxy": says(503, "upstream connect error or disconnect/reset before headers"),
    "402 payment required": says(402, "pay"),
    "503 No capacity available for capability": go(503, NO_CAPABILITY),
    "500 the worker has redirected to nobody": go(500, f'{FAILED}Post "http://127.0.0.1:9/done": {DIAL}'),
    "500 the worker took too long": refusal("context deadline exceeded"),
    "500 Error sending request to worker": go(500, "Error sending request to worker"),
    "400 Could not verify job creds": go(400, "Could not verify job creds"),
    "400 Insufficient balance for request": go(400, "Insufficient balance for request"),
    "503 a livepeer.runner whose places are taken": full,
    "503 insufficient capacity": go(503, "insufficient capacity"),
    "500 no container for the model": go(500, "no container image found for live pipeline noop"),
    "the worker's own 404": missing(404),
    "the worker's own 405": missing(405),
    **{f"the worker's own {status}": worker(status, '{"detail": "No."}') for status in (422, 429, 500, 503)},
    "307 to the same path with a slash": redirect(307, lambda path: f"{path}/"),
    "303 to the same path with a slash": redirect(303, lambda path: f"{path}/"),
    "307 to elsewhere": redirect(307, lambda path: "/elsewhere"),
}


async def token_refused(place: Place, asked: Asked) -> None:
    if place.how == "byoc":
        await go(500, f"{FAILED}worker auth token failed")(place, asked)
    else:
        await says(500, "Orchestrator worker failure")(place, asked)


HAPPENING["500 the worker doesn't take the token"] = token_refused

TURNING: dict[str, str] = {"TLS fails": "garbage", "no connection in time": "silence"}
LIMITS = {
    "no connection in time": Timeout(connect=0.5),
    "no answer in first_byte seconds": Timeout(first_byte=0.3),
    "no answer in total seconds": Timeout(total=0.5),
    "a pause in the middle of the result": Timeout(idle=0.3),
}


def test_the_table_has_what_is_tested() -> None:
    assert {what for what, _, _ in rows()} == set(HAPPENING)
    for _, how, then in rows():
        assert how.split(" ")[0] in WAYS
        assert then in ("next", "its /run, once", "there, once") or issubclass(
            getattr(errors, then), LivepeerError
        )


@contextlib.asynccontextmanager
async def two_places(what: str, how: str, pems: list[Path]) -> AsyncIterator[tuple[Place, Place, Gateway]]:
    turning: Callable[[Place], None] | None = None
    pem = None
    if what == "the connection is refused":

        def turning(place: Place) -> None:
            place.pem = None

    elif HAPPENING[what] is None:
        pem = pems[0]
        changed = Path(TURNING[what]) if what in TURNING else pems[1]

        def turning(place: Place) -> None:
            place.pem = changed

    first = await Place(how, HAPPENING[what], pem, turning).start()
    second = await Place(how).start()
    gateway = Gateway(orch_url=[first.url, second.url])
    try:
        yield first, second, gateway
    finally:
        await gateway.aclose()
        await first.stop()
        await second.stop()


async def made(gateway: Gateway, how: str, verb: str, *, paid: bool, limits: Timeout) -> tuple[str, Any]:
    """Make the call; the orchestrator that answered."""
    if verb == "live":
        name, model = ("live-video-to-video", "noop") if how == "lv2v" else ("it", None)
        started = await gateway._calls.open_live(LiveCall(name, "id-1", model, {"x": 1}))
        return started.orchestrator, started.raw
    call = Call("it", Body(INPUT, "application/json"), limits, "id-1", paid=paid)
    if verb == "run":
        response = await gateway._calls.call(call, None)
        return response.orchestrator, response.data
    stream = AsyncStreamResponse(
        lambda trail: gateway._calls.open_stream(call, None, trail),
        capability="it", timeout=limits, request_id="id-1", allow_incomplete=True,
    )  # fmt: skip
    async with stream:
        events = [event.data async for event in stream]
    return stream.orchestrator, json.loads("".join(map(str, events)))


@pytest.mark.parametrize("what", HAPPENING)
async def test_the_table(what: str, request: pytest.FixtureRequest) -> None:
    """What may happen, in each way to call, with each verb, free and paid, all at once."""
    pems = [request.getfixturevalue("certificates")() for _ in range(2)] if _needs_tls(what) else []
    made = []
    for _, how, then in [row for row in rows() if row[0] == what]:
        way, _, only = how.partition(" ")
        verbs = ("live",) if way in ("live", "byoc-live", "lv2v") else ("run", "stream")
        paying = {"free": (False,), "paid": (True,)}.get(only, (False, True) if len(verbs) == 2 else (False,))
        made += [_case(what, way, verb, paid, then, pems) for verb in verbs for paid in paying]
    await asyncio.gather(*made)


async def _case(what: str, how: str, verb: str, paid: bool, then: str, pems: list[Path]) -> None:
    try:
        await _checked(what, how, verb, paid, then, pems)
    except BaseException as failure:
        failure.add_note(f"{what}: {how} {verb} {'paid' if paid else 'free'} -> {then}")
        raise


async def _checked(what: str, how: str, verb: str, paid: bool, then: str, pems: list[Path]) -> None:
    async with two_places(what, how, pems) as (first, second, gateway):
        where, answer, error = "", None, None
        try:
            where, answer = await made(gateway, how, verb, paid=paid, limits=LIMITS.get(what, Timeout()))
        except LivepeerError as raised:
            error = raised
        counts = len(first.counted), len(second.counted)
        if then == "next":
            assert (error, where) == (None, second.url)
            assert counts == (0 if HAPPENING[what] is None else 1, 1)
        elif then in ("its /run, once", "there, once"):
            assert (error, where, counts) == (None, first.url, (2, 0))
            assert len({one.path for one in first.counted}) == 2
        else:
            assert type(error) is getattr(errors, then), error
            assert counts == (1, 0)
            assert error is not None
            _check_attempts(error, first, paid=paid)
        if verb != "live" and error is None and how != "reserve":
            assert answer == {"got": len(INPUT)}, "the whole body was there"
        if how != "byoc-live":  # whose worker gets no id
            told = [one.request_id() for one in first.counted + second.counted if one.tells_id]
            assert set(told) <= {"id-1"}
            assert told or error is not None
        if what.endswith("kept connection"):
            assert (first.counted[0].number > 1) is not paid


def _check_attempts(error: LivepeerError, first: Place, *, paid: bool) -> None:
    assert error.request_id == "id-1"
    assert error.orchestrator == first.url
    (attempt,) = error.attempts
    assert attempt.orchestrator == first.url
    assert attempt.reason.startswith(f"{type(error).__name__}: ")
    assert (attempt.begun, attempt.paid) == (True, paid)


def _needs_tls(what: str) -> bool:
    return HAPPENING[what] is None and what != "the connection is refused"


@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize("how", ["runner", "byoc"])
async def test_three_are_tried_at_most_and_all_are_told(how: str, paid: bool) -> None:
    places = [await Place(how, refusal(DIAL)).start() for _ in range(5)]
    async with Gateway(orch_url=[place.url for place in places]) as gateway:
        with pytest.raises(LivepeerError) as caught:
            await made(gateway, how, "run", paid=paid, limits=Timeout())
    error = caught.value
    assert [len(place.counted) for place in places] == [1, 1, 1, 0, 0]
    assert [attempt.orchestrator for attempt in error.attempts] == [place.url for place in places[:3]]
    assert {(attempt.begun, attempt.paid) for attempt in error.attempts} == {(False, paid)}
    assert {one.request_id() for place in places for one in place.counted} == {error.request_id} == {"id-1"}
    for place in places:
        await place.stop()


async def test_an_error_tells_of_those_that_were_tried_before() -> None:
    places = [await Place("runner", failing).start() for failing in (refusal(DIAL), cut(answer=HEAD))]
    for verb in ("run", "stream"):  # each with a gateway that doesn't know yet that the first one fails
        async with Gateway(orch_url=[place.url for place in places]) as gateway:
            with pytest.raises(LivepeerError) as caught:
                await made(gateway, "runner", verb, paid=True, limits=Timeout())
            assert [(one.orchestrator, one.begun) for one in caught.value.attempts] == [
                (places[0].url, False), (places[1].url, True)
            ]  # fmt: skip
    for place in places:
        await place.stop()


async def test_nothing_was_paid_where_nothing_was_sent() -> None:
    def turning(place: Place) -> None:
        place.pem = None

    place = await Place("byoc", turning=turning).start()
    async with Gateway(orch_url=place.url) as gateway:
        with pytest.raises(errors.ConnectionFailed) as caught:
            await made(gateway, "byoc", "run", paid=True, limits=Timeout())
    (attempt,) = caught.value.attempts
    assert (attempt.route, attempt.begun, attempt.paid) == ("byoc", False, False)
    await place.stop()


async def test_a_body_that_can_be_read_once_is_whole_at_the_second_and_an_iterator_is_no_body() -> None:
    first, second = [await Place("runner", failing).start() for failing in (refusal(DIAL), None)]
    read, write = os.pipe()
    os.write(write, INPUT)
    os.close(write)
    async with Gateway(orch_url=[first.url, second.url]) as gateway:
        with os.fdopen(read, "rb") as pipe:
            assert await gateway.run_async("it", input=pipe) == {"got": len(INPUT)}
        with pytest.raises(errors.InputError):
            await gateway.run_async("it", input=(piece for piece in "ab"))
    assert [len(first.counted), len(second.counted)] == [1, 1]
    await first.stop()
    await second.stop()
