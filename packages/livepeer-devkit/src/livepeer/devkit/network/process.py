"""Processes that never outlive the one that started them.

The parent's end is `Child`, the child's is `run_child`. Between them: the child's standard input, to which
the parent writes one line of JSON (what to do) and which it then holds open, and one line of JSON back
(``{"ready": …}`` or ``{"error": …}``). The input's end means that the parent has closed it or is gone,
however it went. A child also watches who its parent is: a process which the parent forked could hold the
pipe open. (Linux's ``PR_SET_PDEATHSIG`` would do that too, but it fires when the *thread* that started the
child ends.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import IO, Any

from livepeer.trickle.errors import LivepeerError

__all__ = ["Child", "ChildError", "run_child"]

_STARTING = 60.0  # seconds a child may take to be ready
_LEAVING = 3.0  # seconds it may take to leave when asked
_WATCH = 0.2  # seconds between two looks at the parent


class ChildError(LivepeerError):
    """A process of the development kit did not start, or is gone."""


class Child:
    """A Python module run in a process of its own.

    Args:
        module: The module, run as ``python -m``; its ``__main__`` calls `run_child`.
        name: What to call it in errors.
    """

    def __init__(self, module: str, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._end = weakref.finalize(self, _end, self._process)  # also for callers that never say stop

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def start(self, settings: dict[str, Any], timeout: float = _STARTING) -> dict[str, Any]:
        """Tell it what to do and wait until it does.

        Args:
            settings: JSON for the child.
            timeout: How long to wait, in seconds.

        Returns:
            What the child says of itself.

        Raises:
            ChildError: It failed, or took too long; the child is gone then.
        """
        stdin, stdout = self._pipes()
        timer = threading.Timer(timeout, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(settings).encode() + b"\n")
                stdin.flush()
            line = stdout.readline()
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = {"error": f"it ended before it was ready (exit code {self._exit_code()})."}
        if "error" in answer:
            self.kill()
            raise ChildError(answer["error"] if answer.get("known") else f"{self.name}: {answer['error']}")
        return dict(answer["ready"])

    def stop(self) -> None:
        """Ask it to leave, and make it leave."""
        self._end()

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        self._process.kill()
        self._end()

    def _exit_code(self) -> int:
        self._process.kill()
        return self._process.wait()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_LEAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


Service = Callable[[dict[str, Any]], AbstractAsyncContextManager[dict[str, Any]]]


def run_child(service: Service, *, unwinding: float) -> None:
    """Be a `Child`: serve what the parent's line asks for until the parent closes the pipe, or is gone.

    Args:
        service: Takes the settings; an async context manager of what to tell the parent.
        unwinding: Seconds to leave that context in; 0 ends the process at once, with every connection.
    """
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody reads standard output after the first line
    line = sys.stdin.buffer.readline()
    if not line:
        return
    try:
        asyncio.run(_serve(service, json.loads(line), answers, parent, unwinding))
    except Exception as error:
        known = isinstance(error, LivepeerError)
        told = {"error": str(error) if known else f"{type(error).__name__}: {error}", "known": known}
        with contextlib.suppress(OSError):
            answers.write(json.dumps(told).encode() + b"\n")
            answers.flush()
        sys.exit(1)


async def _serve(
    service: Service, settings: dict[str, Any], answers: IO[bytes], parent: int, unwinding: float
) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def leave() -> None:
        if not unwinding:
            os._exit(0)
        leaving = threading.Timer(unwinding, os._exit, (0,))
        leaving.daemon = True
        leaving.start()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=_watch_pipe, args=(leave,), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(parent, leave), daemon=True).start()
    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGTERM, leave)
    serving = asyncio.ensure_future(_ready(service, settings, answers, over))
    ended = asyncio.ensure_future(over.wait())
    await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    await serving


async def _ready(service: Service, settings: dict[str, Any], answers: IO[bytes], over: asyncio.Event) -> None:
    async with service(settings) as told:
        answers.write(json.dumps({"ready": told}).encode() + b"\n")
        answers.flush()
        await over.wait()


def _watch_pipe(leave: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    leave()


def _watch_parent(parent: int, leave: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH)
    leave()
