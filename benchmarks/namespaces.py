"""Two network namespaces joined by a link that delays every packet and loses some.

The link is made of two TUN devices and a thread between them, because tc's netem is missing from many
kernels. Linux and root are needed, and iproute2's ``ip``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["FAR", "NEAR", "LossyLink", "NoLink"]

NEAR, FAR = "10.77.0.1", "10.77.0.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_SEED = 4  # the same packets are lost in every run, as far as the same ones are sent


class NoLink(Exception):
    """Such a link can't be made here; the text says why."""


class LossyLink:
    """A link, as a context manager; `prefix` runs a command at its near end, `far` enters its far end.

    Args:
        delay: Seconds that each packet takes, in each direction.
        loss: The share of packets that is lost, in each direction.

    Raises:
        NoLink: When it is entered, where it can't be made.
    """

    def __init__(self, delay: float, loss: float) -> None:
        self._delay = delay
        self._loss = loss
        self._names = [f"bench-{end}-{os.getpid()}" for end in ("near", "far")]
        self._devices: list[int] = []
        self._stop, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="lossy-link", daemon=True)
        self.carried = 0
        self.lost = 0

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is prefixed with to run at the near end."""
        return ("ip", "netns", "exec", self._names[0])

    @contextlib.contextmanager
    def far(self) -> Iterator[None]:
        """Let this thread, and the processes that it starts, live at the far end meanwhile."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(self._path(1), "rb") as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def __enter__(self) -> Self:
        _check()
        try:
            for name, address in zip(self._names, (NEAR, FAR), strict=True):
                device = f"bn{os.getpid()}-{len(self._devices)}"
                _ip("netns", "add", name)
                self._devices.append(_tun(device))
                _ip("link", "set", device, "netns", name)
                inside = ("-n", name)
                _ip(*inside, "addr", "add", f"{address}/24", "dev", device)
                _ip(*inside, "link", "set", device, "up")
                _ip(*inside, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._wake, b"x")
        self._thread.join(2)
        self._remove()

    def _path(self, end: int) -> Path:
        return Path("/run/netns") / self._names[end]

    def _remove(self) -> None:
        for device in self._devices:
            os.close(device)
        for end, name in enumerate(self._names):
            if self._path(end).exists():
                _ip("netns", "del", name)

    def _carry(self) -> None:
        """Carry packets both ways until told to stop."""
        dice = random.Random(_SEED)
        other = dict(zip(self._devices, reversed(self._devices), strict=True))
        waiting: deque[tuple[float, int, bytes]] = deque()  # in order: the delay is the same for all
        while True:
            left = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
            ready, _, _ = select.select([self._stop, *self._devices], [], [], left)
            if self._stop in ready:
                return
            for device in ready:
                packet = os.read(device, 65536)
                if dice.random() < self._loss:
                    self.lost += 1
                else:
                    waiting.append((time.monotonic() + self._delay, other[device], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, device, packet = waiting.popleft()
                self.carried += 1
                with contextlib.suppress(OSError):  # the end is gone, or its queue is full: a lost packet
                    os.write(device, packet)


def _check() -> None:
    if sys.platform != "linux":
        raise NoLink("network namespaces are Linux's")
    if os.geteuid() != 0:
        raise NoLink("network namespaces need root")
    if shutil.which("ip") is None:
        raise NoLink("there is no `ip` (Debian's iproute2)")
    if not os.path.exists("/dev/net/tun"):
        raise NoLink("there is no /dev/net/tun")


def _tun(name: str) -> int:
    if sys.platform == "win32":
        raise NoLink("network namespaces are Linux's")
    import fcntl

    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(device)
        raise NoLink(f"no TUN device can be made ({error})") from error
    return device


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoLink(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


def _set_namespace(handle: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise NoLink(f"this process can't enter a network namespace: {os.strerror(number)}")
