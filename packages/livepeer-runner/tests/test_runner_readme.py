"""The README's examples, executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livepeer.runner import LivePipeline, running

README = Path(__file__).parent.parent / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not beside the tests")


def example(number: int) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {"__name__": "example"}
    exec(blocks[number], names)
    return names


async def test_the_first_example(http: aiohttp.ClientSession) -> None:
    async with running(example(0)["Sentiment"]()) as server:
        # curl -d sends JSON under the type of a form.
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with http.post(
            server.url + "/sentiment", data='{"text": "a great day"}', headers=headers
        ) as response:
            assert await response.json() == {"label": "positive", "score": 2}


def test_the_live_example() -> None:
    live = example(1)["Invert"]
    assert issubclass(live, LivePipeline)
    assert (live.app_name(), live.has_video(), live.has_data()) == ("invert", True, False)
