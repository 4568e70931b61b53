from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from livepeer.devkit import LocalNetwork
from livepeer.devkit.demo import clip, sound

RUNNER = """
from livepeer.runner import Pipeline
class Shout(Pipeline):
    def run(self, text: str) -> str:
        return text.upper()
"""


def livepeer(*arguments: object, env: dict[str, str] | None = None, given: bytes | None = None) -> Any:
    """Run the command; its result has `returncode`, `stdout` and `stderr`."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("LIVEPEER_")}
    return subprocess.run(
        [sys.executable, "-c", "from livepeer.devkit.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        env=quiet | (env or {}),
        input=given,
        check=False,
        timeout=100,
    )


def test_help_and_version() -> None:
    shown = livepeer("--help")
    assert shown.returncode == 0
    for command in ("demo", "dev", "capabilities", "explain", "run", "serve"):
        assert command in shown.stdout.decode()
    assert livepeer("--version").stdout.decode().count(".") == 2
    assert livepeer("nonsense").returncode == 2


def test_run_and_capabilities(livepeer_network: LocalNetwork, tmp_path: Path) -> None:
    env = livepeer_network.env()
    done = livepeer("run", "text-reverse", '{"text": "hello"}', env=env)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"text": "olleh"})
    done = livepeer("run", "echo", "-", env=env, given=b"\x00bytes")
    assert (done.returncode, done.stdout) == (0, b"\x00bytes")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("RGB", (8, 8), (255, 0, 10)).save(source)
    done = livepeer("run", "image-invert", f"@{source}", "-o", target, env=env)
    assert done.returncode == 0, done.stderr
    assert Image.open(target).getpixel((0, 0)) == (0, 255, 245)
    told = json.loads(livepeer("explain", "llm-chat", "--json", env=env).stdout)
    assert told["candidates"][0]["usable"]
    assert "can be used" in livepeer("explain", "llm-chat", "--live", env=env).stdout.decode()
    listed = json.loads(livepeer("capabilities", "--json", env=env).stdout)
    assert {one["name"] for one in listed} >= {"echo", "llm-chat", "video-filter"}
    assert "llm-chat" in livepeer("capabilities", "--orch-url", livepeer_network.orch_url).stdout.decode()
    described = livepeer("schema", "text-reverse", env=env)
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["input"]["properties"]["text"]["type"] == "string"
    assert livepeer("schema", "nobody", env=env).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "echo", "{broken"], 2, "not JSON"),
        (["run", "echo", "@absent"], 2, "There is no file absent"),
        (["run", "absent"], 1, "absent"),
        (["run", "text-reverse", '{"txet": 1}'], 1, "txet"),
        (["serve", "absent.py:Thing"], 2, "There is no file absent.py"),
        (["serve", "thing"], 2, "names no class"),
        (["serve", "livepeer.devkit.samples.echo:Echo", "--register", "boyc"], 2, '"byoc"'),
    ],
)
def test_what_goes_wrong_is_said(
    livepeer_network: LocalNetwork, arguments: list[str], code: int, words: str
) -> None:
    done = livepeer(*arguments, env=livepeer_network.env())
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_nothing_configured() -> None:
    done = livepeer("capabilities")
    assert done.returncode == 2
    assert b"livepeer dev" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once there")
def test_dev(gone: Callable[[int], bool]) -> None:
    command = [
        sys.executable,
        "-c",
        "from livepeer.devkit.cli import main; main()",
        "dev",
        "--json",
        "--paid",
    ]
    running = subprocess.Popen([*command, "--no-samples"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    told = b""
    while not told.endswith(b"\n}\n"):
        told += running.stdout.readline()
    network = json.loads(told)
    assert network["env"]["LIVEPEER_ORCH_URL"] == network["orch_url"]
    assert network["env"]["LIVEPEER_SIGNER_URL"] == network["signers"]["main"]
    assert livepeer("capabilities", "--json", env=network["env"]).stdout == b"[]\n"
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, b"")
    assert gone(network["pid"])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once there")
@pytest.mark.parametrize("ways", [[], ["byoc"], ["byoc", "live-runner"]])
def test_serve(tmp_path: Path, ways: list[str]) -> None:
    (tmp_path / "mine.py").write_text(RUNNER)
    with LocalNetwork(samples=False) as network:
        command = [sys.executable, "-c", "from livepeer.devkit.cli import main; main()", "serve"]
        register = [argument for way in ways for argument in ("--register", way)]
        running = subprocess.Popen(
            [*command, str(tmp_path / "mine.py") + ":Shout", "--port", "0", *register],
            env=os.environ | network.env(),
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 20
            while True:
                done = livepeer("run", "shout", '{"text": "hey"}', env=network.env())
                if done.returncode == 0 or time.monotonic() > deadline:
                    break
                time.sleep(0.3)
            listed = json.loads(livepeer("capabilities", "--json", env=network.env()).stdout)
            assert ("live-runner" in [one["transport"] for one in listed]) == (ways != ["byoc"])
            assert done.stdout.decode().strip() == "HEY", done.stderr
        finally:
            running.terminate()
            assert running.wait(10) == 0


def test_demo(tmp_path: Path) -> None:
    done = livepeer("demo", "--json", "--seconds", 5, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["ok"]
    assert [one["capability"] for one in report["calls"]] == [
        "text-reverse",
        "word-count",
        "image-invert",
        "llm-chat",
        "video-filter",
    ]
    live = report["calls"][-1]
    assert (live["frames_sent"], live["frames_received"], live["frames_lost"]) == (150, 150, 0)
    assert 0 < live["latency_p50"] <= live["latency_p95"]
    assert 0 < live["sound_p50"] <= live["sound_p95"]
    assert "the sound came back in sync with the picture" in {check["name"] for check in report["checks"]}
    length, frames = clip.duration_of(tmp_path / "out" / "output.mp4")
    assert (round(length, 1), frames) == (5.0, 150)
    assert abs(sound.length_of(tmp_path / "out" / "output.mp4") - 5) < 0.1
    with Image.open(tmp_path / "out" / "output.png") as picture:
        assert picture.size == (480, 320)


def test_demo_elsewhere_with_the_users_own(tmp_path: Path) -> None:
    picture = tmp_path / "photo.jpg"
    Image.new("L", (301, 177), 90).save(picture)
    video = tmp_path / "mine.mkv"
    make_video(video)
    with LocalNetwork(samples=False) as network:
        where = ("--orch-url", network.orch_url, "--orch-secret", network.orch_secret)
        done = livepeer("demo", *where, "--image", picture, "--video", video, "--out", tmp_path)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        text = done.stdout.decode()
        for heading in ("capability", "orchestrator", "route", "first result", "lost", "p50", "p95", "sound"):
            assert heading in text
        assert abs(sound.length_of(tmp_path / "output.mp4") - 2) < 0.1
        assert network._discovered() == []  # the samples have unregistered
        wrong = livepeer("demo", *where[:3], "wrong", "--out", tmp_path, "--json")
        assert (wrong.returncode, json.loads(wrong.stdout)["ok"]) == (1, False)
        assert b"refuses the secret" in wrong.stderr


def make_video(path: Path) -> None:
    """Two seconds of a moving red gradient, and of a sound that swells six times."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=25)
        picture.width, picture.height, picture.pix_fmt = 160, 120, "yuvj420p"
        heard = container.add_stream("flac", rate=44_100, layout="mono")
        for number in range(50):
            shade = (np.arange(160) + 4 * number).astype(np.uint8)
            planes = np.concatenate([np.tile(shade, (120, 1)), np.full((60, 160), 200, np.uint8)])
            container.mux(picture.encode(av.VideoFrame.from_ndarray(planes, "yuvj420p")))
            at = np.arange(number * 1764, (number + 1) * 1764) / 44_100
            wave = 8000 * np.sin(at * 2 * np.pi * 330) * np.sin(at * 2 * np.pi * 1.5)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts = 44_100, number * 1764
            container.mux(heard.encode(frame))
        container.mux([*picture.encode(), *heard.encode()])


def test_demo_with_a_video_that_is_none(tmp_path: Path) -> None:
    words = tmp_path / "words.mp4"
    words.write_text("no video")
    done = livepeer("demo", "--video", words, "--out", tmp_path)
    assert done.returncode == 2
    assert b"is not a video that can be read" in done.stderr
    assert b"Traceback" not in done.stderr
    done = livepeer("demo", "--orch-url", "https://127.0.0.1:9")
    assert (done.returncode, b"--orch-secret" in done.stderr) == (2, True)


def test_the_demo_s_table_is_readable_in_80_columns() -> None:
    from rich.console import Console

    from livepeer.devkit.cli import demo
    from livepeer.devkit.demo.report import Report, Row

    row = Row(
        "video-filter", "live", "https://127.0.0.1:38735", "live-runner, persistent", 0.2, 6.0, 165, 165
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(demo._table(Report(rows=[row] * 5), narrow=True))
    text = console.export_text()
    assert "…" not in text
    for heading in ("capability", "orchestrator", "route", "first result", "received", "p95"):
        assert heading in text
