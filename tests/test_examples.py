"""The examples run, as a reader would run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

from livepeer.client import Gateway
from livepeer.devkit import LocalNetwork

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, network: LocalNetwork, folder: Path, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-W", "error", str(EXAMPLES / name)],
        env={**os.environ, **network.env()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # asyncio's debug mode complains of a busy machine, which is not what is tested
    errors = re.sub(r"(?m)^Executing <.*> took \d+\.\d+ seconds\n", "", done.stderr)
    assert (done.returncode, errors) == (0, "")
    return done.stdout


def test_run(livepeer_network: LocalNetwork, tmp_path: Path) -> None:
    first, second = run("run.py", livepeer_network, tmp_path, "-X", "dev").splitlines()
    assert first == "{'text': 'olleh'}"
    assert second.startswith("422: ")


def test_stream(livepeer_network: LocalNetwork, tmp_path: Path) -> None:
    assert len(run("stream.py", livepeer_network, tmp_path, "-X", "dev").split()) >= 10


def test_live(livepeer_network: LocalNetwork, tmp_path: Path) -> None:
    said = run("live.py", livepeer_network, tmp_path)
    assert "saved filtered.mp4" in said
    assert "'effect': 'gray'" in said
    with av.open(str(tmp_path / "filtered.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 90
    with av.open(str(tmp_path / "filtered.mp4")) as video:
        assert abs(sum(frame.samples for frame in video.decode(audio=0)) / 48_000 - 3) < 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_runner(livepeer_network: LocalNetwork) -> None:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "runner.py")], env={**os.environ, **livepeer_network.env()}
    )
    try:
        livepeer_network.wait_for("sentiment")
        with Gateway(orch_url=livepeer_network.orch_url) as gw:
            result = gw.run("sentiment", input={"text": "what a great day"})
        assert result == {"label": "positive", "score": 1}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with Gateway(orch_url=livepeer_network.orch_url) as gw:
        assert "sentiment" not in {capability.name for capability in gw.capabilities()}
