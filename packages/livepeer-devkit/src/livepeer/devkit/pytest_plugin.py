"""A pytest fixture: a Livepeer network on this machine, for the tests of whoever installs this package.

pytest loads this module in every run, so it imports nothing but pytest until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .network import LocalNetwork

__all__ = ["livepeer_network"]


@pytest.fixture(scope="session")
def livepeer_network() -> Iterator[LocalNetwork]:
    """A running `livepeer.devkit.LocalNetwork` with every sample, shared by the session's tests."""
    from .network import LocalNetwork

    with LocalNetwork() as network:
        yield network
