"""The package's face: what it exports, what importing it loads, and its errors."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import livepeer.trickle
from livepeer.trickle import errors

HEAVY = {"aiohttp", "av", "numpy", "yarl", "PIL"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["livepeer.trickle", "livepeer.trickle.media", "livepeer.trickle.protocol"]
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = run(f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})")
    assert not HEAVY & set(loaded.split())


def test_every_exported_name_is_there() -> None:
    for name in livepeer.trickle.__all__:
        assert getattr(livepeer.trickle, name) is not None
    assert sorted(livepeer.trickle.__all__) == livepeer.trickle.__all__ == dir(livepeer.trickle)
    with pytest.raises(AttributeError):
        _ = livepeer.trickle.nope


def test_every_exported_media_name_is_there() -> None:
    pytest.importorskip("av")
    import livepeer.trickle.media

    for name in livepeer.trickle.media.__all__:
        assert getattr(livepeer.trickle.media, name) is not None
    with pytest.raises(AttributeError):
        _ = livepeer.trickle.media.nope


@pytest.mark.parametrize("missing", ["av", "numpy"])
def test_a_missing_extra_says_how_to_install_it(missing: str) -> None:
    said = run(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import livepeer.trickle.media as media\n"
        "try: media.VideoFrame\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    if missing == "av" or "av" in run("import importlib.util as u; print('av' if u.find_spec('av') else '')"):
        assert said.startswith("ConfigurationError")
        assert 'pip install "livepeer-trickle[media]"' in said


@pytest.mark.parametrize("face", ["livepeer.trickle", "livepeer.trickle.media"])
def test_type_hints_resolve(face: str) -> None:
    if face.endswith("media"):
        pytest.importorskip("av")
    module = importlib.import_module(face)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) and not issubclass(value, Exception):
            typing.get_type_hints(value.__init__)
            for method, _ in inspect.getmembers(value, inspect.isfunction):
                typing.get_type_hints(getattr(value, method))


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_errors_are_picklable_and_have_one_root(kind: type[errors.LivepeerError]) -> None:
    error = kind("It broke.", hint="Mend it.", request_id="r1", orchestrator="https://o", retryable=True)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error) == "It broke. Mend it. [orchestrator=https://o, request_id=r1]"
        assert again.retryable
        assert again.__dict__ == error.__dict__
    assert isinstance(error, errors.LivepeerError)


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert livepeer.trickle.__version__ == version("livepeer-trickle")


def test_the_readmes_examples_work() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    video, *more, channels = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    for example in more:
        exec(compile(example, "README.md", "exec"), {})
    exec(compile(channels, "README.md", "exec"), scope := {})
    pytest.importorskip("av")

    async def main() -> None:
        async with livepeer.trickle.TrickleServer.serve() as server:
            for write, read in (("write", "read"), ("control", "events")):
                url = server.channel_url(write)
                server.create(write)
                reading = asyncio.create_task(scope[read](url))
                await asyncio.sleep(0.05)
                await scope[write](url)
                await reading

    asyncio.run(main())
    assert run(video).splitlines()[-1].startswith("0.967 s (360, 640, 3)")
