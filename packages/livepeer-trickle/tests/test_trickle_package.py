"""The package's face: what it exports, what importing it loads, and its errors."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import typing

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
    loaded = run(f"import sys, livepeer.{module}; print(*{{name.split('.')[0] for name in sys.modules}})")
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


def test_type_hints_resolve() -> None:
    for name in livepeer.trickle.__all__:
        value = getattr(livepeer.trickle, name)
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
