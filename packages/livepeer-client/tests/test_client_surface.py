"""The face of the package: what it exports, loads, promises by its types, and raises."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import livepeer.client as client
from livepeer.client import errors
from livepeer.client.gateway import Gateway

# What is documented: the verbs' own types, and every error of the tree in `errors`.
DOCUMENTED = {
    "AsyncStreamResponse", "Attempt", "AudioFrame", "Blob", "Candidate", "Capability",
    "ChannelStats", "Diagnosis", "Explanation", "Finding", "Gateway", "Gpu", "Latency", "LiveSession",
    "MediaOutput", "MediaPublish", "Price", "Rejection", "RequestRecord", "Response", "SessionStats",
    "StreamEvent", "StreamResponse", "Timeout", "VideoFrame", "__version__",
}  # fmt: skip
HEAVY = (
    "aiohttp",
    "yarl",
    "multidict",
    "av",
    "grpc",
    "google.protobuf",
    "numpy",
    "pydantic",
    "fastapi",
    "uvicorn",
)


def tree() -> dict[str, str | None]:
    """Each error that the docstring of `errors` draws, with its parent."""
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ]*(?:[├└]── )?)(\w+)(?:$| )", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while above and above[-1][0] >= depth:
            above.pop()
        drawn[name] = above[-1][1] if above else None
        above.append((depth, name))
    return drawn


def test_the_exports_are_the_documented_ones() -> None:
    below_trickle = {"ChannelNotFound", "ChannelClosed", "TrickleConnectionError"}
    assert set(client.__all__) == DOCUMENTED | set(tree()) | below_trickle
    assert set(errors.__all__) == set(tree()) | below_trickle | {"Attempt", "Rejection"}
    assert dir(client) == sorted(client.__all__)
    assert len(set(client.__all__)) == len(client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'submit'"):
        client.submit  # noqa: B018


def test_the_tree_of_errors_is_as_drawn() -> None:
    drawn = tree()
    assert drawn["LivepeerError"] is None
    assert drawn["IdleTimeout"] == "LivepeerTimeout"
    assert len(drawn) > 20
    for name, parent in drawn.items():
        kind = getattr(errors, name)
        assert kind.__doc__
        if parent is not None:
            assert kind.__bases__[0] is getattr(errors, parent), name
    for name, builtin in (
        ("InputError", ValueError),
        ("ConnectionFailed", ConnectionError),
        ("LivepeerTimeout", TimeoutError),
        ("TrickleConnectionError", ConnectionError),
    ):
        assert issubclass(getattr(errors, name), builtin)


def test_every_public_name_is_there_and_documented() -> None:
    for name in client.__all__:
        if name in ("AudioFrame", "MediaOutput", "MediaPublish", "VideoFrame"):
            pytest.importorskip("av")
        value = getattr(client, name)
        assert name == "__version__" or inspect.getdoc(value), name
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and callable(member):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


def test_type_hints_of_public_names_work() -> None:
    pytest.importorskip("av")  # `LiveSession.publish` names the media classes
    seen = 0
    for name in client.__all__:
        value = getattr(client, name)
        if not inspect.isclass(value):
            continue
        typing.get_type_hints(value)
        for attribute in dir(value):
            member = inspect.getattr_static(value, attribute)
            member = member.fget if isinstance(member, property) else member
            member = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if attribute.startswith("_") or not inspect.isfunction(member):
                continue
            if member.__module__.startswith("livepeer."):
                typing.get_type_hints(member)
                seen += 1
    typing.get_type_hints(Gateway.__init__)
    assert seen > 30


PAIRS = [
    ("run", "run_async"),
    ("call", "call_async"),
    ("stream", "stream_async"),
    ("capabilities", "capabilities_async"),
    ("check", "check_async"),
    ("explain", "explain_async"),
    ("map", "map_async"),
    ("schema", "schema_async"),
]


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_the_twins_have_the_same_signature(sync: str, other: str) -> None:
    one, two = (inspect.signature(getattr(Gateway, name)) for name in (sync, other))
    assert list(one.parameters.values()) == list(two.parameters.values())
    if sync not in ("stream", "map"):
        assert one.return_annotation == two.return_annotation
        assert inspect.iscoroutinefunction(getattr(Gateway, other))
    overloads = [typing.get_overloads(getattr(Gateway, name)) for name in (sync, other)]
    assert [inspect.signature(o) for o in overloads[0]] == [inspect.signature(o) for o in overloads[1]]


def test_every_verb_has_its_twin() -> None:
    public = {
        name for name, member in inspect.getmembers(Gateway, inspect.isfunction) if not name.startswith("_")
    }
    assert public == {name for pair in PAIRS for name in pair} | {"live", "close", "aclose"}
    assert Gateway.live.__name__ == "live"


def test_the_stream_twins_have_the_same_face() -> None:
    def face(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    asynchronous = (face(client.AsyncStreamResponse) - {"aclose", "read_batch"}) | {
        "complete",
        "metadata",
        "request_id",
    }
    assert face(client.StreamResponse) - {"close"} == asynchronous


def test_verbs_take_keywords_only() -> None:
    for name in ("run", "stream", "call", "live"):
        parameters = list(inspect.signature(getattr(Gateway, name)).parameters.values())[2:]
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


def loaded_by(source: str) -> list[str]:
    code = f"import sys, json\n{source}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    modules: list[str] = json.loads(done.stdout)
    return [name for name in modules if name in HEAVY or name.partition(".")[0] in HEAVY]


def test_the_import_loads_nothing_heavy() -> None:
    names = ", ".join(
        sorted(set(client.__all__) - {"AudioFrame", "MediaOutput", "MediaPublish", "VideoFrame"})
    )
    assert loaded_by("import livepeer.client") == []
    assert loaded_by(f"from livepeer.client import {names}") == []
    assert loaded_by("from livepeer.client import Gateway, Timeout\nTimeout(5)\nGateway.__doc__") == []


@pytest.mark.parametrize("scheme", ["http", "tls"])
def test_a_call_loads_its_http_and_not_more(request: Any, scheme: str) -> None:
    """A process with one call must not take longer than another library's; aiohttp alone takes as long."""
    url = request.getfixturevalue("orch" if scheme == "http" else "tls_orch").url
    loaded = loaded_by(
        "from livepeer.client import Gateway\n"
        f"with Gateway(orch_url={url!r}) as gateway:\n"
        "    assert gateway.run('echo', input=1) == gateway.run('p-echo', input=1) == 1\n"
        "    assert [event.data for event in gateway.stream('tokens')] == ['0', '1', '2']"
    )
    assert loaded == []


def test_a_call_loads_its_own_route_alone(orch: Any) -> None:
    """What a process loads for one call is most of what it takes."""
    needless = (
        "livepeer.client._through_node", "livepeer.client.payments.exchange",
        "livepeer.client.payments.wallet", "livepeer.client.routes.byoc", "livepeer.client.routes.lv2v",
        "livepeer.client.token", "datetime", "difflib", "email", "fractions", "hashlib", "random",
        "urllib.request", "uuid",
    )  # fmt: skip
    code = "import sys\nfrom livepeer.client import Gateway\n"
    code += f"with Gateway(orch_url={orch.url!r}) as gateway:\n    gateway.run('echo', input=1)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + f"print(*[name for name in {needless!r} if name in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []


def test_there_is_no_module_at_the_namespace() -> None:
    import livepeer

    assert livepeer.__spec__ is not None
    assert livepeer.__spec__.origin is None
    for folder in livepeer.__path__:
        assert not (Path(folder) / "__init__.py").exists()
    assert (Path(client.__file__).parent / "py.typed").exists()


def test_every_module_says_what_it_exports() -> None:
    folder = Path(client.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(("livepeer.client", *path.relative_to(folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        if name.endswith("._version"):
            continue
        if path.name in ("session.py", "drain.py") and path.parent.name == "live":
            pytest.importorskip("livepeer.trickle.media")
        module = importlib.import_module(name)
        assert module.__doc__, name
        for exported in module.__all__:
            if name != "livepeer.client":
                assert hasattr(module, exported), f"{name}.{exported}"


# Errors as values

EXTRA: dict[str, dict[str, Any]] = {
    "CapabilityNotFound": {"capability": "x", "available": ("y",)},
    "NoOrchestratorError": {"rejections": (errors.Rejection("u", "r", "h"),)},
    "LivepeerTimeout": {"waited": 1.5},
    "ConnectTimeout": {"waited": 1.5},
    "FirstByteTimeout": {"waited": 1.5},
    "IdleTimeout": {"waited": 1.5},
    "DeadlineExceeded": {"waited": 1.5},
    "CapabilityError": {"status": 418, "body": b"teapot", "content_type": "text/plain"},
    "CapacityError": {"retry_after": 2.0},
    "OrchestratorError": {"status": 502, "body": "text"},
    "ResponseError": {"body": b"x"},
    "SessionEnded": {"reason": "closed"},
    "SessionLost": {"reason": "orchestrator gone"},
    "SessionStalled": {"silent": "input", "waited": 10.5, "frames_in": 3, "frames_out": 1},
}


def every_error() -> list[str]:
    return [name for name in errors.__all__ if name not in ("Attempt", "Rejection")]


@pytest.mark.parametrize("name", every_error())
def test_errors_can_be_pickled_and_copied(name: str) -> None:
    kind = getattr(errors, name)
    error = kind(
        "What was wrong.",
        hint="What to do.",
        request_id="id",
        orchestrator="https://o",
        **EXTRA.get(name, {}),
    )
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert again.args == error.args
    assert str(error).startswith("What was wrong. What to do. [orchestrator=https://o, request_id=id]")
    assert isinstance(error, errors.LivepeerError)
    assert str(kind("Only this.", **EXTRA.get(name, {}))).startswith("Only this.")
    assert error.attempts == ()
    attempt = errors.Attempt("https://o", "byoc", "ConnectionFailed: No.", begun=False, paid=True)
    error.attempts = (attempt,)
    assert pickle.loads(pickle.dumps(error)).attempts == (attempt,)


def test_events_and_results_are_values() -> None:
    event = client.StreamEvent("x", "e", "1", 5)
    assert pickle.loads(pickle.dumps(event)) == event == client.StreamEvent("x", "e", "1", 5)
    with pytest.raises(AttributeError):
        event.data = "y"  # type: ignore[misc]
    assert client.StreamEvent('{"a": 1}').json() == {"a": 1}
    assert pickle.loads(pickle.dumps(client.Timeout(idle=3))) == client.Timeout(idle=3)
    assert client.Timeout().connect == 10.0


@pytest.mark.parametrize("verb", ["map", "map_async"])
async def test_verbs_of_later_versions_say_so(verb: str) -> None:
    later = getattr(Gateway(orch_url="http://127.0.0.1:9"), verb)
    with pytest.raises(errors.ConfigurationError, match=f"Gateway.{verb} is not part of this version"):
        await later("echo", [1, 2])
