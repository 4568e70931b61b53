"""``livepeer dev``: the embedded network until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from ..network import LocalNetwork
from .output import print_json, say

__all__ = ["dev"]


def dev(port: int, secret: str | None, samples: bool, as_json: bool, *, paid: bool = False) -> None:
    """Start the network, print what to export, and wait."""
    over = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    with LocalNetwork(samples=samples, port=port, secret=secret, paid=paid) as network:
        if as_json:
            told = {"orch_url": network.orch_url, "env": network.env(), "pid": network.pid}
            if paid:
                told["signers"] = {name: signer.url for name, signer in network.signers.items()}
            print_json(told)
        else:
            word = "set" if os.name == "nt" else "export"
            for name, value in network.env().items():
                print(f"{word} {name}={value}", flush=True)
            if paid:
                others = [f"{name} {signer.url}" for name, signer in network.signers.items()][1:]
                say(f"Calls are paid with play money by a rich signer; there are others: {', '.join(others)}")
            say("The network is up. Paste those lines into another terminal, then: livepeer capabilities")
            say("Ctrl-C ends it.")
        while not over.wait(1):  # a wait without a limit would not let signals through on Windows
            continue
