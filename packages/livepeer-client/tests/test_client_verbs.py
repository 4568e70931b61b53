"""The verbs, synchronous and asynchronous, by the same tests: results, inputs, models, paths, sessions."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    Blob,
    CapabilityError,
    DeadlineExceeded,
    Price,
    Response,
    ResponseError,
    StreamEvent,
)

# Results


@pytest.mark.parametrize(
    ("text", "kind", "result"),
    [
        ('{"a": [1, null]}', "application/json", {"a": [1, None]}),
        ("1.5", "application/json; charset=utf-8", 1.5),
        ('{"t": 1}', "application/problem+json", {"t": 1}),
        ("", "application/json", None),
        ("héllo", "text/plain", "héllo"),
        ("<p>", "text/html; charset=utf-8", "<p>"),
        ("", "text/plain", ""),
    ],
)
def test_results(verbs: Any, text: str, kind: str, result: Any) -> None:
    assert verbs.run("answer", input={"text": text, "type": kind}) == result


def test_text_in_another_charset(orch: Any, verbs: Any) -> None:
    async def latin(_orch: Any, _request: Any) -> web.Response:
        return web.Response(
            body="é".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
        )

    orch.add("latin", latin)
    assert verbs.run("latin") == "é"


def test_a_blob(verbs: Any, tmp_path: Path) -> None:
    blob = verbs.run("answer", input={"text": "pixels", "type": "image/png"})
    assert isinstance(blob, Blob)
    assert (blob, blob.content_type) == (b"pixels", "image/png")
    assert repr(blob) == "<Blob image/png, 6 bytes>"
    assert blob.save(tmp_path / "x.png").read_bytes() == b"pixels"
    assert blob.save(str(tmp_path / "y.png")) == tmp_path / "y.png"
    copy = pickle.loads(pickle.dumps(blob))
    assert (copy, copy.content_type) == (blob, "image/png")
    assert verbs.run("echo", input=blob).content_type == "image/png"


def test_what_a_notebook_shows_of_a_blob() -> None:
    assert Blob(b"x", "image/png")._repr_mimebundle_()["image/png"] == "eA=="
    assert Blob(b"x", "video/mp4")._repr_mimebundle_()["text/html"].startswith("<video controls")
    assert set(Blob(b"x", "application/pdf")._repr_mimebundle_()) == {"text/plain"}


def test_no_content(orch: Any, verbs: Any) -> None:
    async def nothing(_orch: Any, _request: Any) -> web.Response:
        return web.Response(status=204)

    orch.add("nothing", nothing)
    assert verbs.run("nothing") == b""
    assert verbs.call("nothing").status == 204


def test_a_stream_is_gathered(verbs: Any) -> None:
    assert verbs.run("tokens", input={"count": 3}) == [StreamEvent("0"), StreamEvent("1"), StreamEvent("2")]
    assert verbs.run("p-tokens", input={"count": 0}) == []


def test_a_gathered_stream_ends_at_done_even_when_the_worker_goes_on(orch: Any, verbs: Any) -> None:
    async def goes_on(orch: Any, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: x\n\ndata: [DONE]\n\n")
        await orch.gate("never").passed()
        return stream

    orch.add("goes-on", goes_on)
    assert verbs.run("goes-on", timeout=5) == [StreamEvent("x")]
    orch.wait_note("goes-on gone")


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def test_output_types(verbs: Any) -> None:
    def run(text: str, output_type: Any) -> Any:
        return verbs.run("answer", input={"text": text}, output_type=output_type)

    assert run('{"x": 1}', Point) == Point(1)
    assert run('{"x": 1}', dict) == {"x": 1}
    assert run("[1]", list) == [1]
    assert run("1", int) == 1
    assert run('"1"', int) == 1
    for text, wrong in (('{"z": 1}', Point), ("[1]", dict), ('"x"', int), ("[1]", Point)):
        with pytest.raises(ResponseError, match="does not fit output_type="):
            run(text, wrong)


def test_pydantic_output(verbs: Any) -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Answer", x=(int, ...))
    assert verbs.run("answer", input={"text": '{"x": "1"}'}, output_type=model).x == 1
    with pytest.raises(ResponseError, match="output_type=Answer"):
        verbs.run("answer", input={"text": "{}"}, output_type=model)


def test_the_whole_response(orch: Any, verbs: Any) -> None:
    headers = {"X-Mine": "yes", "Set-Cookie": "a=b"}
    response = verbs.call("answer", input={"text": "[]", "status": 201, "headers": headers})
    assert isinstance(response, Response)
    assert (response.data, response.status, response.content_type) == ([], 201, "application/json")
    assert response.headers["x-mine"] == "yes"
    assert (response.orchestrator, response.app) == (orch.url, "answer")
    assert (response.price, response.cost) == (None, 0)
    assert 0 < response.elapsed < 10
    assert orch.last("answer").headers["X-Request-Id"] == response.request_id
    assert response.request_id != verbs.call("answer", input={}).request_id


# Inputs, as they reach the worker


def test_inputs(orch: Any, verbs: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG")
    (tmp_path / "odd.zzz").write_bytes(b"odd")
    with path.open("rb") as file, (tmp_path / "odd.zzz").open("rb") as odd:
        for value, body, kind in (
            (None, b"{}", "application/json"),
            ({"a": "é"}, '{"a":"é"}'.encode(), "application/json"),
            ([1], b"[1]", "application/json"),
            ("text", b'"text"', "application/json"),
            (0, b"0", "application/json"),
            (Point(1, 2), b'{"x":1,"y":2}', "application/json"),
            (b"raw", b"raw", "application/octet-stream"),
            (bytearray(b"raw"), b"raw", "application/octet-stream"),
            (b"", b"", "application/octet-stream"),
            (Blob(b"x", "audio/wav"), b"x", "audio/wav"),
            (path, b"\x89PNG", "image/png"),
            (file, b"\x89PNG", "image/png"),
            (odd, b"odd", "application/octet-stream"),
            (io.BytesIO(b"mem"), b"mem", "application/octet-stream"),
            (
                {"i": b"\xff", "p": path, "n": [b""]},
                b'{"i":"/w==","p":"iVBORw==","n":[""]}',
                "application/json",
            ),
        ):
            verbs.run("echo", input=value)
            seen = orch.last("echo")
            assert (seen.body, seen.headers["Content-Type"]) == (body, kind), value
            assert seen.method == "POST"


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_large_inputs_and_results(verbs: Any, size: int) -> None:
    assert verbs.run("echo", input=b"x" * size) == b"x" * size
    assert verbs.run("echo", input=["y" * size]) == ["y" * size]
    assert len(verbs.run("echo", input=list(range(size // 100)))) == size // 100


# Models and paths


def test_the_model_goes_into_a_json_object(verbs: Any) -> None:
    assert verbs.run("echo", input={"a": 1}, model="m") == {"a": 1, "model": "m"}
    assert verbs.run("echo", model="m") == {"model": "m"}
    assert verbs.run("echo", input={"model": "mine"}, model="m") == {"model": "mine"}
    assert verbs.run("echo", input=Point(1), model="m") == {"x": 1, "y": 0, "model": "m"}
    assert verbs.run("echo", input=[1], model="m") == [1]
    assert verbs.run("echo", input=b"raw", model="m") == b"raw"


def test_the_input_is_left_as_it_was(verbs: Any) -> None:
    value = {"a": 1}
    verbs.run("echo", input=value, model="m")
    assert value == {"a": 1}


def test_the_model_selects_the_app(orch: Any, verbs: Any) -> None:
    async def mine(_orch: Any, _request: Any) -> web.Response:
        return web.json_response("mine")

    orch.add("echo/mine", mine)
    assert verbs.run("echo", model="mine") == "mine"
    assert verbs.run("echo/mine") == "mine"
    assert verbs.run("echo", input=b"raw", model="mine") == "mine"
    assert verbs.run("echo", input=5, model="other") == 5


def test_paths(orch: Any, verbs: Any) -> None:
    def path(**options: Any) -> tuple[str, str]:
        seen = verbs.run("inspect", **options)
        return seen["path"], seen["query"]

    assert path() == ("run", "")
    assert path(path="/a/b") == ("a/b", "")
    assert path(path="a") == ("a", "")
    assert path(path="/a?x=1%202&y=%2F%41") == ("a", "x=1%202&y=%2F%41")
    orch.apps["inspect"].metadata = '{"livepeer": 1, "run": "/v1/predict"}'
    verbs.capabilities()
    assert path() == ("v1/predict", "")
    assert path(path="/other") == ("other", "")


def test_metadata_of_others_means_nothing(orch: Any, verbs: Any) -> None:
    for metadata in ('{"run": "/no"}', "free text", "[]", '{"livepeer": 1, "run": 7}'):
        orch.apps["inspect"].metadata = metadata
        verbs.capabilities()
        assert verbs.run("inspect")["path"] == "run"


# Sessions of persistent runners


@pytest.mark.parametrize("verb", ["run", "stream"])
def test_a_persistent_runner_gets_a_session_which_is_stopped(orch: Any, verbs: Any, verb: str) -> None:
    if verb == "run":
        assert verbs.run("p-echo", input=1) == 1
    else:
        assert [event.data for event in verbs.stream("p-tokens")] == ["0", "1", "2"]
    assert (orch.reserved, orch.stopped) == (1, 1)


@pytest.mark.parametrize("verb", ["run", "stream"])
def test_the_session_is_stopped_after_a_failure(orch: Any, verbs: Any, verb: str) -> None:
    with pytest.raises(CapabilityError):
        getattr(verbs, verb)("p-answer", input={"status": 500})
    if verbs.name == "async":
        verbs.runner.run(verbs.gateway.aclose())
    orch.wait(lambda: not orch.sessions, "the session is stopped")
    assert (orch.reserved, orch.stopped) == (1, 1)


def test_the_session_is_stopped_after_a_time_limit(orch: Any, verbs: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        verbs.run("p-slow", timeout=1)
    if verbs.name == "async":
        verbs.runner.run(verbs.gateway.aclose())
    orch.wait(lambda: not orch.sessions, "the session is stopped")
    orch.wait_note("p-slow gone")


def test_the_session_is_stopped_after_an_early_exit(orch: Any, verbs: Any) -> None:
    with verbs.stream("p-tokens", input={"endless": True}) as stream:
        assert next(stream).data == "0"
        assert len(orch.sessions) == 1
    assert not orch.sessions
    orch.wait_note("p-tokens gone")


def test_a_stop_that_fails_is_tried_again(orch: Any, verbs: Any) -> None:
    tries: list[web.Request] = []

    async def unwilling(request: web.Request) -> web.StreamResponse:
        tries.append(request)
        if len(tries) == 1:
            request.transport.abort()  # type: ignore[union-attr]
        return await orch.stop_session(request)

    orch.stopping = unwilling
    assert verbs.run("p-echo", input=1) == 1
    assert len(tries) == 2
    assert not orch.sessions


# Discovery


def test_capabilities(orch: Any, verbs: Any) -> None:
    orch.apps.clear()
    assert verbs.capabilities() == []
    orch.add("b", None, capacity=3)
    orch.add("a", None, mode="persistent", metadata='{"livepeer": 1, "schema_url": "https://x/s"}')
    orch.add("c", None, price={"price": 12, "currency": "wei", "unit": "seconds"})
    a, b, c = verbs.capabilities()
    assert [one.name for one in (a, b, c)] == ["a", "b", "c"]
    assert (a.mode, a.schema_url, a.transport) == ("persistent", "https://x/s", "live-runner")
    assert (b.mode, b.capacity, b.available, b.price) == ("single-shot", 3, 3, None)
    assert c.price == Price(12, "seconds")
    assert str(c.price) == "12 wei/second"
    assert a.orchestrators == (orch.url,)
    assert not [seen for seen in orch.seen if seen.path != "/discovery"], "no worker is asked"


def test_the_listing_is_kept_for_a_moment(orch: Any, verbs: Any) -> None:
    for number in range(5):
        assert verbs.run("echo", input=number) == number
    assert sum(1 for seen in orch.seen if seen.path == "/discovery") == 1


def test_a_capability_that_is_new_is_found_at_once(orch: Any, verbs: Any) -> None:
    verbs.run("echo")
    orch.add("new", orch.apps["echo"].handler)
    assert verbs.run("new", input=1) == 1


def test_a_runner_that_came_back_under_another_id_is_found(orch: Any, verbs: Any) -> None:
    for name in ("echo", "p-echo"):
        verbs.run(name)
        app = orch.apps[name]
        orch.add(name, app.handler, mode=app.mode)
        assert verbs.run(name, input=1) == 1


def test_a_runner_with_a_free_place_is_preferred(orch: Any, make_verbs: Any) -> None:
    orch.apps["echo"].capacity = 0
    free = orch.add("free", orch.apps["echo"].handler)
    free.name = "echo"
    verbs = make_verbs(orch_url=orch.url)
    assert [verbs.run("echo", input=n) for n in range(4)] == [0, 1, 2, 3]


def test_several_orchestrators_in_order(orch: Any, tls_orch: Any, make_verbs: Any) -> None:
    both = [tls_orch.url + "/", orch.url]
    verbs = make_verbs(orch_url=both)
    assert verbs.call("echo").orchestrator == tls_orch.url
    del tls_orch.apps["echo"]
    verbs.capabilities()
    assert verbs.call("echo").orchestrator == orch.url
    assert make_verbs(orch_url=",".join(both)).call("echo").orchestrator == orch.url
    assert len(verbs.capabilities()[0].orchestrators) == 2


def test_one_orchestrator_of_two_is_down(orch: Any, make_verbs: Any) -> None:
    assert make_verbs(orch_url=["http://127.0.0.1:1", orch.url]).run("echo", input=1) == 1


def test_a_discovery_service(orch: Any, tls_orch: Any, make_verbs: Any) -> None:
    async def both(_orch: Any, request: web.Request) -> web.Response:
        if request.headers.get("X-Key") != "secret":
            return web.Response(status=401)
        return web.json_response([*tls_orch.listing(tls_orch.url), {"address": "https://127.0.0.1:1"}])

    orch.discovery = both
    verbs = make_verbs(discovery_url=orch.url + "/discovery", discovery_headers={"X-Key": "secret"})
    assert verbs.call("echo").orchestrator == tls_orch.url
    assert all("X-Key" not in seen.headers for seen in tls_orch.seen), "headers go to their origin only"


def test_configuration_from_the_environment(
    orch: Any, make_verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    monkeypatch.setenv("LIVEPEER_ORCH_URL", orch.url)
    assert make_verbs().run("echo", input=1) == 1
    monkeypatch.setenv("LIVEPEER_ORCH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LIVEPEER_DISCOVERY_URL", orch.url + "/discovery")
    token = base64.urlsafe_b64encode(json.dumps({"orchestrators": [orch.url]}).encode()).decode().rstrip("=")
    assert make_verbs(token=f"  {token}\n").run("echo", input=2) == 2
    assert make_verbs(orch_url=orch.url).run("echo", input=3) == 3
    monkeypatch.setenv("LIVEPEER_TOKEN", token)
    assert make_verbs().run("echo", input=4) == 4
