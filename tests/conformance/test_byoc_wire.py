"""BYOC by hand: a bare HTTP worker registers, bare requests use it (PROTOCOL section 3).

Nothing is registered while a request is under way, except where that is the question: registrations in a fast
loop beside requests have crashed go-livepeer.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from byoc_harness import ByocWorker, job, job_header, token
from harness import Worker, dial, until

from livepeer.devkit.network.certificate import server_context

UNKNOWN = "No capacity available for capability\n"
NOT_ABLE = "job not able to be processed, removing capability err="


@pytest.fixture
async def byoc(worker: Worker) -> ByocWorker:
    """A bare worker with one capability of capacity 3."""
    return await ByocWorker.make(worker, capacity=3)


class TestRegistration:
    async def test_a_worker_registers_and_leaves(self, byoc: ByocWorker) -> None:
        assert await byoc.known()
        await byoc.worker.unregister_byoc(byoc.capability)
        assert not await byoc.known()
        await byoc.worker.unregister_byoc("never-was")  # is no error

    @pytest.mark.parametrize("verb", ["register", "unregister"])
    async def test_a_wrong_secret_is_a_400(self, worker: Worker, verb: str) -> None:
        assert await worker.capability(verb, "{}", secret="no") == (400, "invalid authorization\n")

    @pytest.mark.parametrize("verb", ["register", "unregister"])
    async def test_other_methods_are_a_405(self, worker: Worker, verb: str) -> None:
        url = f"{worker.network.url}/capability/{verb}"
        assert await worker.ask("GET", url) == (405, "Method not allowed\n")

    @pytest.mark.parametrize(
        ("body", "complaint"),
        [
            ("", "unexpected end of JSON input"),
            ('{"name": "x"', "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ('{"name": "x"} more', "invalid character 'm' after top-level value"),
            ("[1]", "json: cannot unmarshal array into Go value of type core.ExternalCapability"),
            (
                '{"capacity": "1"}',
                "json: cannot unmarshal string into Go struct field ExternalCapability.capacity of type int",
            ),
            (
                '{"price_per_unit": 1.5}',
                "json: cannot unmarshal number 1.5 into Go struct field"
                " ExternalCapability.price_per_unit of type int64",
            ),
        ],
    )
    async def test_what_is_no_registration_is_a_400(self, worker: Worker, body: str, complaint: str) -> None:
        status, text = await worker.capability("register", body)
        assert (status, text) == (400, f"Error registering capability: {complaint}")

    async def test_a_currency_without_a_feed_drops_the_connection(self, worker: Worker) -> None:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await worker.capability("register", json.dumps({"name": "usd", "url": "u", "currency": "USD"}))
        assert (await worker.capability("unregister", "usd"))[0] == 200  # and nothing else happened

    async def test_the_newest_registration_counts(self, byoc: ByocWorker) -> None:
        name, url = byoc.capability, await byoc.worker.start()
        await byoc.worker.register_byoc(name, capacity=5, url=f"{url}/below")
        assert await byoc.free() == 5
        await byoc.call("run")
        assert byoc.asked[-1].path == "/below/run"

    async def test_the_token_of_a_registration_reaches_the_worker(self, worker: Worker) -> None:
        byoc = await ByocWorker.make(worker, token="let me in")
        await byoc.call()
        assert byoc.asked[-1].headers["Authorization"] == "Bearer let me in"


class TestToken:
    async def test_it_tells_price_and_free_capacity(self, byoc: ByocWorker) -> None:
        assert await byoc.token() == {
            "sender_address": {"addr": "", "sig": ""},
            "price": {"pixelsPerUnit": 1},
            "service_addr": byoc.network.url,
            "available_capacity": 3,
            "LastNonce": 0,
        }

    async def test_an_unknown_capability_has_one_too(self, worker: Worker) -> None:
        assert await token(worker, "never-was") == {
            "sender_address": {"addr": "", "sig": ""},
            "price": {"pixelsPerUnit": 1},
            "service_addr": worker.network.url,
            "LastNonce": 0,
        }

    async def test_no_capacity_looks_like_an_unknown_capability(self, worker: Worker) -> None:
        name = await worker.register_byoc(capacity=0)
        assert "available_capacity" not in await token(worker, name)

    async def test_the_sender_comes_back_as_it_was(self, worker: Worker) -> None:
        address = {"addr": "0x" + "ab" * 20, "sig": "0x" + "cd" * 65}
        assert (await token(worker, "any", address))["sender_address"] == address

    @pytest.mark.parametrize(
        ("headers", "complaint"),
        [
            (
                {"Livepeer-Capability": "x"},
                "Must have eth address and signature on address in Livepeer-Eth-Address header",
            ),
            (
                {"Livepeer-Capability": "x", "Livepeer-Eth-Address": "not base64!"},
                "Invalid eth address header ",
            ),
            (
                {"Livepeer-Capability": "x", "Livepeer-Eth-Address": base64.b64encode(b"{").decode()},
                "Invalid eth address header ",
            ),
            (
                {
                    "Livepeer-Capability": "x",
                    "Livepeer-Eth-Address": base64.b64encode(b'{"sig": "no hex"}').decode(),
                },
                "Invalid eth address header ",
            ),
            (
                {"Livepeer-Eth-Address": base64.b64encode(b"{}").decode()},
                "Job capabilities not provided, must provide comma separated capabilities"
                " in Livepeer-Capability header",
            ),
        ],
    )
    async def test_it_wants_both_headers(
        self, worker: Worker, headers: dict[str, str], complaint: str
    ) -> None:
        url = f"{worker.network.url}/process/token"
        assert await worker.ask("GET", url, headers=headers) == (400, complaint + "\n")

    async def test_other_methods_are_a_405(self, worker: Worker) -> None:
        url = f"{worker.network.url}/process/token"
        assert await worker.ask("POST", url) == (405, "Method not allowed\n")


class TestCapacity:
    async def test_it_is_counted_but_not_enforced(self, worker: Worker) -> None:
        byoc = await ByocWorker.make(worker, capacity=1)
        go = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await go.wait()
            return web.Response(text="done")

        byoc.answer = wait
        assert await byoc.free() == 1
        calls = [asyncio.create_task(byoc.call()) for _ in range(3)]
        await until(lambda: len(byoc.asked) == 3)
        assert await byoc.free() == 0
        go.set()
        assert [reply.text for reply in await asyncio.gather(*calls)] == ["done"] * 3
        assert await byoc.free() == 1

    async def test_a_registration_resets_the_count(self, byoc: ByocWorker) -> None:
        go = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await go.wait()
            return web.Response()

        byoc.answer = wait
        calling = asyncio.create_task(byoc.call())
        await until(lambda: byoc.asked)
        assert await byoc.free() == 2
        await byoc.worker.register_byoc(byoc.capability, capacity=3)
        assert await byoc.free() == 3
        go.set()
        await calling
        assert await byoc.free() == 4  # the call gives back what the new count never took

    async def test_a_caller_who_leaves_before_the_answer_takes_a_unit_along(self, byoc: ByocWorker) -> None:
        never = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await never.wait()
            raise AssertionError

        byoc.answer = wait
        calling = asyncio.create_task(byoc.call())
        await until(lambda: byoc.asked)
        calling.cancel()
        await asyncio.wait_for(byoc.gone.wait(), 30)  # the worker notices at once
        assert await byoc.free() == 2
        assert await byoc.known()


class TestRequests:
    async def test_the_header_picks_the_capability_and_the_path_the_route(self, byoc: ByocWorker) -> None:
        await byoc.call("any/route/at/all")
        assert (byoc.asked[-1].method, byoc.asked[-1].path) == ("POST", "/any/route/at/all")

    async def test_no_route_is_the_workers_own_url(self, byoc: ByocWorker) -> None:
        await byoc.call("")
        assert byoc.asked[-1].path == "/"
        assert (await byoc.call("../request")).status == 307

    async def test_without_the_slash_it_is_a_redirect(self, byoc: ByocWorker) -> None:
        url = f"{byoc.network.url}/process/request"
        async with byoc.worker.request("POST", url, headers=job(byoc.capability)) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/process/request/")

    async def test_other_methods_are_a_405(self, byoc: ByocWorker) -> None:
        reply = await byoc.call(method="GET")
        assert (reply.status, reply.text) == (405, "Method not allowed\n")

    async def test_only_body_type_and_length_reach_the_worker(self, byoc: ByocWorker) -> None:
        headers = {"Content-Type": "text/x-mine", "X-Mine": "1", "Authorization": "2", "Cookie": "a=b"}
        await byoc.call("run?with=query", data=b"body", headers=headers)
        asked = byoc.asked[-1]
        assert (asked.path, asked.body) == ("/run", b"body")
        assert dict(asked.headers) == {
            "Host": asked.headers["Host"],
            "User-Agent": "Go-http-client/1.1",
            "Content-Length": "4",
            "Content-Type": "text/x-mine",
            "Accept-Encoding": "gzip",
        }

    async def test_no_type_and_no_body_arrive_as_empty_ones(self, byoc: ByocWorker) -> None:
        async with dial(byoc.network) as wire:
            header = f"Livepeer: {job_header(byoc.capability)}"
            await wire.ask("POST", "/process/request/run", header, "Content-Length: 0")
            assert (await wire.answer())[0] == 200
        asked = byoc.asked[-1]
        assert (asked.body, asked.headers["Content-Length"], asked.headers["Content-Type"]) == (b"", "0", "")

    async def test_a_chunked_body_arrives_whole_with_its_length(self, byoc: ByocWorker) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one "
            await asyncio.sleep(0.05)
            assert not byoc.asked
            yield b"two"

        await byoc.call(data=pieces())
        asked = byoc.asked[-1]
        assert (asked.body, asked.headers["Content-Length"]) == (b"one two", "7")
        assert "Transfer-Encoding" not in asked.headers

    async def test_who_expects_a_100_gets_it(self, byoc: ByocWorker) -> None:
        async with dial(byoc.network) as wire:
            headers = [f"Livepeer: {job_header(byoc.capability)}", "Content-Length: 4"]
            await wire.ask("POST", "/process/request/run", *headers, "Expect: 100-continue")
            assert (await wire.head())[0] == 100
            await wire.send(b"body")
            assert (await wire.answer())[0] == 200
        assert byoc.asked[-1].body == b"body"

    @pytest.mark.parametrize(
        ("route", "arrives"),
        [
            ("a%20b", "/a%20b"),
            ("a%2Fb", "/a/b"),
            ("%C3%A9", "/%C3%A9"),
            ("a!b(c)", "/a!b(c)"),
            ("a%3Fb=c", "/a?b=c"),
            ("a%23b", "/a"),
            ("a%2541", "/a%41"),
        ],
    )
    async def test_escapes_of_the_route_are_undone(self, byoc: ByocWorker, route: str, arrives: str) -> None:
        async with dial(byoc.network) as wire:
            headers = [f"Livepeer: {job_header(byoc.capability)}", "Content-Length: 0"]
            await wire.ask("POST", f"/process/request/{route}", *headers)
            assert (await wire.answer())[0] == 200
        assert byoc.asked[-1].path == arrives

    async def test_what_is_no_route_is_a_500(self, byoc: ByocWorker) -> None:
        async with dial(byoc.network) as wire:
            headers = [f"Livepeer: {job_header(byoc.capability)}", "Content-Length: 0"]
            await wire.ask("POST", "/process/request/a%25zz", *headers)
            status, _, body = await wire.answer()
        url = f"{await byoc.worker.start()}/a%zz"
        assert (status, body.decode()) == (500, f'parse "{url}": invalid URL escape "%zz"\n')

    async def test_a_body_of_100_mb_passes(self, byoc: ByocWorker) -> None:
        big = b"0123456789abcdef" * ((100 << 20) // 16)
        assert (await byoc.call(data=io.BytesIO(big))).status == 200
        assert byoc.asked.pop().body == big

    async def test_so_does_an_answer_of_some(self, byoc: ByocWorker) -> None:
        big = b"0123456789abcdef" * ((20 << 20) // 16)

        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=io.BytesIO(big))

        byoc.answer = answer
        assert (await byoc.call()).body == big

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "not base64!",
            job_header("x").rstrip("=") + "=" * 5,
            base64.b64encode(b"not json").decode(),
            base64.b64encode(b'{"timeout_seconds": "5"}').decode(),
            job_header("x", timeout=1.5),
            job_header("x", sig="no hex"),
        ],
    )
    async def test_a_header_that_is_none_is_a_400(self, worker: Worker, header: str | None) -> None:
        url, headers = f"{worker.network.url}/process/request/run", {"Livepeer": header} if header else {}
        answer = await worker.ask("POST", url, headers=headers)
        assert answer == (400, "Could not verify job creds\n")

    @pytest.mark.parametrize("timeout", [0, None])
    async def test_the_timeout_has_to_be_there(self, worker: Worker, timeout: int | None) -> None:
        url = f"{worker.network.url}/process/request/run"
        answer = await worker.ask("POST", url, headers=job("x", timeout=timeout))
        assert answer == (400, "no timeout_seconds set with request, timeout_seconds is required\n")

    async def test_a_timeout_below_0_is_over_at_once(self, byoc: ByocWorker) -> None:
        reply = await byoc.call(timeout=-1)
        assert (reply.status, reply.text.endswith(": context canceled\n")) == (500, True), reply
        assert await byoc.known()

    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            ("", "unexpected end of JSON input"),
            ("[]", "json: cannot unmarshal array into Go value of type byoc.JobRequestDetails"),
        ],
    )
    async def test_the_request_in_it_is_an_object(
        self, byoc: ByocWorker, request_: str, complaint: str
    ) -> None:
        url = f"{byoc.network.url}/process/request/run"
        answer = await byoc.worker.ask("POST", url, headers=job(byoc.capability, request=request_))
        assert answer == (400, f"Unable to unmarshal job request details err={complaint}\n")
        assert await byoc.free() == 2  # and a unit of capacity is lost with it

    async def test_an_unknown_capability_is_a_503(self, worker: Worker) -> None:
        url = f"{worker.network.url}/process/request/run"
        assert await worker.ask("POST", url, headers=job("never-was")) == (503, UNKNOWN)

    async def test_a_refusal_comes_before_the_body(self, network: Any) -> None:
        async with dial(network) as wire:
            headers = [f"Livepeer: {job_header('never-was')}", "Content-Length: 100000000"]
            await wire.ask("POST", "/process/request/run", *headers)
            assert (await wire.head())[0] == 503


class TestAnswers:
    async def test_only_body_type_balance_and_metadata_come_back(self, byoc: ByocWorker) -> None:
        async def answer(_: web.Request) -> web.Response:
            headers = {"X-Metadata": "mine", "X-Mine": "1", "Set-Cookie": "a=b", "Location": "/there"}
            return web.Response(body=b"body", content_type="image/png", headers=headers)

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.body) == (200, b"body")
        reply.headers.pop("Date")
        assert dict(reply.headers) == {
            "Content-Type": "image/png",
            "Livepeer-Balance": "0",
            "X-Metadata": "mine",
            "Content-Length": "4",
        }

    async def test_neither_type_nor_metadata_are_empty_headers(self, byoc: ByocWorker) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            request.transport.close()
            return web.Response()

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.headers["Content-Type"], reply.headers["X-Metadata"], reply.text) == ("", "", "hi")

    @pytest.mark.parametrize("status", [201, 202, 204, 206, 299, 304, 399])
    async def test_every_status_under_400_is_a_200(self, byoc: ByocWorker, status: int) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text="" if status in (204, 304) else "text")

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.text) == (200, "" if status in (204, 304) else "text")

    @pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422, 429, 500, 502, 503, 599])
    async def test_from_400_up_it_is_text_with_a_newline(self, byoc: ByocWorker, status: int) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"detail": "bad"}, status=status, headers={"X-Metadata": "mine"})

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.text) == (status, '{"detail": "bad"}\n')
        reply.headers.pop("Date")
        reply.headers.pop("Content-Length")
        assert dict(reply.headers) == {
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            "Livepeer-Balance": "0",
            "X-Metadata": "mine",
        }
        assert await byoc.known()
        assert await byoc.free() == 3

    @pytest.mark.parametrize(
        ("status", "method", "body"),
        [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")],
    )
    async def test_the_orchestrator_follows_redirects(
        self, byoc: ByocWorker, status: int, method: str, body: bytes
    ) -> None:
        async def answer(request: web.Request) -> web.Response:
            if request.path == "/run":
                return web.Response(status=status, headers={"Location": "/there"})
            return web.Response(text="there")

        byoc.answer = answer
        assert (await byoc.call(data=b"x")).text == "there"
        asked = byoc.asked[-1]
        assert (asked.method, asked.path, asked.body) == (method, "/there", body)

    async def test_too_many_redirects_are_forgotten(self, byoc: ByocWorker) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": "/run"})

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.text) == (500, f'{NOT_ABLE}Post "/run": stopped after 10 redirects\n')
        assert len(byoc.asked) == 10
        assert not await byoc.known()

    @pytest.mark.parametrize("status", [302, 307])
    async def test_a_redirect_to_nobody_is_told_by_its_url_alone(self, byoc: ByocWorker, status: int) -> None:
        """The text is the one of a worker that is not there, who has done nothing, and this one may have."""
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and doesn't listen
            address = f"127.0.0.1:{nobody.getsockname()[1]}"

            async def answer(_: web.Request) -> web.Response:
                return web.Response(status=status, headers={"Location": f"http://{address}/there"})

            byoc.answer = answer
            reply = await byoc.call(data=b"x")
        refused = f'Post "http://{address}/there": dial tcp {address}: connect: connection refused'
        assert (reply.status, reply.text) == (500, f"{NOT_ABLE}{refused}\n")
        assert len(byoc.asked) == 1

    async def test_a_redirect_to_nowhere_stands(self, byoc: ByocWorker) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=302, text="nowhere")

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.text) == (200, "nowhere")

    async def test_gzip_is_asked_for_and_undone(self, byoc: ByocWorker) -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.headers["Accept-Encoding"] == "gzip"
            return web.Response(body=gzip.compress(b"text"), headers={"Content-Encoding": "gzip"})

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.body, "Content-Encoding" in reply.headers) == (b"text", False)

    async def test_json_lines_come_at_the_end(self, byoc: ByocWorker) -> None:
        go, first = asyncio.Event(), asyncio.Event()

        async def lines(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            await response.write(b'{"n": 1}\n')
            first.set()
            await go.wait()
            await response.write(b'{"n": 2}\n')
            return response

        byoc.answer = lines
        async with dial(byoc.network) as wire:
            headers = [f"Livepeer: {job_header(byoc.capability)}", "Content-Length: 0"]
            await wire.ask("POST", "/process/request/run", *headers)
            await first.wait()
            reading = asyncio.create_task(wire.answer())
            await asyncio.wait({reading}, timeout=0.2)
            assert not reading.done()
            go.set()
            status, sent, body = await reading
        assert (status, sent["Content-Type"]) == (200, "application/x-ndjson")
        assert body == b'{"n": 1}\n{"n": 2}\n'

    async def test_a_worker_that_dies_in_its_answer_is_a_500(self, byoc: ByocWorker) -> None:
        async def die(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "100", "X-Metadata": "mine"})
            await response.prepare(request)
            await response.write(b"some")
            assert request.transport is not None
            request.transport.close()
            return response

        byoc.answer = die
        reply = await byoc.call()
        assert (reply.status, reply.text) == (500, "unexpected EOF\n")
        assert await byoc.known()
        assert await byoc.free() == 3


async def test_any_certificate_of_a_worker_is_believed(worker: Worker) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="in secret")

    app = web.Application()
    app.router.add_post("/run", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context("elsewhere")).start()
        name = await worker.register_byoc(url=f"https://127.0.0.1:{runner.addresses[0][1]}")
        url = f"{worker.network.url}/process/request/run"
        assert await worker.ask("POST", url, headers=job(name)) == (200, "in secret")
    finally:
        await runner.cleanup()


class TestForgetting:
    async def test_a_refused_connection(self, byoc: ByocWorker) -> None:
        url = await byoc.worker.start()
        await byoc.worker.stop()
        reply = await byoc.call()
        address = url.removeprefix("http://")
        expected = f'{NOT_ABLE}Post "{url}/run": dial tcp {address}: connect: connection refused\n'
        assert (reply.status, reply.text) == (500, expected)
        assert reply.headers["Livepeer-Balance"] == "0"
        assert not await byoc.known()

    @pytest.mark.parametrize(
        ("sent", "complaint"),
        [
            (b"", "EOF"),
            (
                b"nonsense\r\n\r\n",
                'net/http: HTTP/1.x transport connection broken: malformed HTTP response "nonsense"',
            ),
        ],
    )
    async def test_an_answer_that_is_none(self, byoc: ByocWorker, sent: bytes, complaint: str) -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.write(sent)
            request.transport.close()
            return web.Response()

        byoc.answer = answer
        reply = await byoc.call()
        url = f"{await byoc.worker.start()}/run"
        assert (reply.status, reply.text) == (500, f'{NOT_ABLE}Post "{url}": {complaint}\n')
        assert not await byoc.known()

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("", 'Post "/run": unsupported protocol scheme ""'),
            ("nonsense", 'Post "nonsense/run": unsupported protocol scheme ""'),
            ("ftp://worker", 'Post "ftp://worker/run": unsupported protocol scheme "ftp"'),
            ("http:///", 'Post "http:////run": http: no Host in request URL'),
        ],
    )
    async def test_an_address_that_is_none(self, worker: Worker, url: str, complaint: str) -> None:
        name = await worker.register_byoc(url=url)  # which is taken as it is
        ask = worker.network.url + "/process/request/run"
        assert await worker.ask("POST", ask, headers=job(name)) == (500, f"{NOT_ABLE}{complaint}\n")
        assert await worker.ask("POST", ask, headers=job(name)) == (503, UNKNOWN)

    async def test_but_not_one_that_cannot_be_read(self, worker: Worker) -> None:
        name = await worker.register_byoc(url="http://[worker")
        ask = worker.network.url + "/process/request/run"
        for _ in range(2):
            status, text = await worker.ask("POST", ask, headers=job(name))
            assert (status, text.partition(": ")[0]) == (500, 'parse "http://[worker/run"'), text
        start = worker.network.url + "/ai/stream/start"
        assert await worker.ask("POST", start, headers=job(name), json={}) == (
            500,
            "Failed to create worker request\n",
        )

    async def test_a_slash_at_its_end_stays(self, byoc: ByocWorker) -> None:
        url = await byoc.worker.start()
        await byoc.worker.register_byoc(byoc.capability, url=f"{url}/")
        await byoc.call()
        assert byoc.asked[-1].path == "//run"

    async def test_a_401(self, byoc: ByocWorker) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=401, text="who are you?")

        byoc.answer = answer
        reply = await byoc.call()
        assert (reply.status, reply.text) == (500, f"{NOT_ABLE}worker auth token failed\n")
        assert not await byoc.known()

    async def test_not_a_timeout_which_bounds_the_wait_for_the_headers(self, byoc: ByocWorker) -> None:
        never = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await never.wait()
            raise AssertionError

        byoc.answer = wait
        reply = await byoc.call(timeout=1)
        url = f"{await byoc.worker.start()}/run"
        assert (reply.status, reply.text) == (500, f'{NOT_ABLE}Post "{url}": context canceled\n')
        await asyncio.wait_for(byoc.gone.wait(), 30)
        assert await byoc.known()
        assert await byoc.free() == 2  # that call's unit is lost until the worker registers again

    async def test_and_the_timeout_bounds_no_body(self, byoc: ByocWorker) -> None:
        async def slow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(1.5)
            await response.write(b"late")
            return response

        byoc.answer = slow
        reply = await byoc.call(timeout=1)
        assert (reply.status, reply.text) == (200, "late")

    async def test_it_is_back_when_it_registers_again(self, byoc: ByocWorker) -> None:
        await byoc.worker.unregister_byoc(byoc.capability)
        assert not await byoc.known()
        await byoc.worker.register_byoc(byoc.capability)
        assert await byoc.known()
