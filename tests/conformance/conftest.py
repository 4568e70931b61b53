"""The two networks that every test of this folder runs on: the embedded one, and a real go-livepeer."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from livepeer.client import Gateway
from livepeer.devkit import SampleRunners

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module
sys.path.insert(0, str(Path(__file__).parent.parent / "paidnet"))

from ai_harness import Model, make_models
from harness import Embedded, GoLivepeer, Network, Worker
from node_harness import EmbeddedNode, GoNode, NodeNetwork
from paid_harness import EmbeddedPaid, PaidGoLivepeer, PaidNetwork
from paid_workers import PaidApps, PaidWorker
from payer import Payer
from silence import Silence


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for the protocol's own intervals, twenty seconds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of a network once on each network that there is."""
    if "network_kind" in metafunc.fixturenames:
        kinds = ["embedded"] + (["go-livepeer"] if metafunc.config.getoption("--go-livepeer") else [])
        metafunc.parametrize("network_kind", kinds, scope="session", indirect=True)


def make_network(
    kind: str, config: pytest.Config, models: Sequence[Model] = (), *, tls: bool = True
) -> Network:
    """A network of a kind, not yet started."""
    if kind == "embedded":
        return Embedded(models=models, tls=tls)
    binary = Path(config.getoption("--go-livepeer")).expanduser().resolve()
    return GoLivepeer(binary, models=models, tls=tls)


@pytest.fixture(scope="session")
def network_kind(request: pytest.FixtureRequest) -> str:
    """Which network the test runs on."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A running network without any runner of its own, shared by the tests; they don't restart it."""
    with make_network(network_kind, request.config) as running:
        yield running


@pytest.fixture(scope="session")
def ai_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A running network with an AI worker and the models "noop" and "other", shared by the tests.

    No container is up: a test plays one with `Container(ai_network.models, "noop")`, or serves something on
    `ai_network.port_of("noop")`.
    """
    with make_network(network_kind, request.config, make_models("noop", "other")) as running:
        yield running


@pytest.fixture(scope="session")
def silence(network: Network, request: pytest.FixtureRequest) -> Iterator[Silence]:
    """Long waits on the network, under way."""
    with Silence(network, request.config.getoption("--silence")) as running:
        yield running


@pytest.fixture(autouse=True)
def _silence_begins_early(request: pytest.FixtureRequest) -> None:
    """Let the long waits, where they are asked for, pass while the other tests of the network run.

    Of several workers, only the one that takes the tests that wait waits: they are one share of the root's
    conftest.py.
    """
    items = request.session.items
    mine = not hasattr(request.config, "workerinput") or request.node.get_closest_marker("slow")
    if mine and "network" in request.fixturenames and any("silence" in _fixtures(item) for item in items):
        request.getfixturevalue("silence")


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(scope="session")
def samples(network: Network) -> Iterator[Network]:
    """The same network, with the sample capabilities registered."""
    with SampleRunners(orch_url=network.url, secret=network.secret):
        yield network


@pytest.fixture
def fresh_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network of the test's own, to restart and to kill."""
    with make_network(network_kind, request.config) as running:
        yield running


@pytest.fixture
def fresh_ai_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """The same with an AI worker and the model "noop"."""
    with make_network(network_kind, request.config, make_models("noop")) as running:
        yield running


@pytest.fixture
def unstarted_ai_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """The same, which the test starts: its container may be there before it."""
    network = make_network(network_kind, request.config, make_models("noop"))
    yield network
    network.stop()


@pytest.fixture
def plain_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network of the test's own that speaks HTTP without TLS."""
    with make_network(network_kind, request.config, tls=False) as running:
        yield running


@pytest.fixture
def gateway(samples: Network) -> Iterator[Gateway]:
    """A gateway for the network with the samples."""
    with Gateway(orch_url=samples.url) as gw:
        yield gw


@pytest.fixture
async def worker(network: Network) -> AsyncIterator[Worker]:
    """A bare HTTP application of the test's own, not yet registered: `worker.register(app=…)`."""
    async with Worker(network) as made:
        yield made


def make_paid_network(kind: str, config: pytest.Config, models: Sequence[Model] = ()) -> PaidNetwork:
    """A paid network of a kind, not yet started."""
    if kind == "embedded":
        return EmbeddedPaid(models)
    return PaidGoLivepeer(Path(config.getoption("--go-livepeer")).expanduser().resolve(), models)


@pytest.fixture(scope="session")
def paid_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[PaidNetwork]:
    """A running paid network with the model "noop", shared by the tests; they don't restart it."""
    network = make_paid_network(network_kind, request.config, make_models("noop", capacity=4))
    try:
        with network:
            yield network
    finally:
        network.stop()


@pytest.fixture
def fresh_paid_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[PaidNetwork]:
    """A paid network of the test's own, to restart and to kill."""
    network = make_paid_network(network_kind, request.config)
    try:
        with network:
            yield network
    finally:
        network.stop()


@pytest.fixture
async def paid_worker(paid_network: PaidNetwork) -> AsyncIterator[PaidWorker]:
    """A bare worker that registers runners with prices: `await paid_worker.price("seconds")`."""
    async with PaidWorker(paid_network) as made:
        yield made


@pytest.fixture(scope="session")
def paid_apps(paid_network: PaidNetwork) -> Iterator[PaidApps]:
    """The same as `paid_worker` in a thread of its own, with an app for each unit and mode."""
    with PaidApps(paid_network) as running:
        yield running


@pytest.fixture
async def payer(paid_network: PaidNetwork, paid_worker: PaidWorker) -> AsyncIterator[Payer]:
    """A bare caller who pays by the rich signer, and who has paid before (see test_paid_topup_wire.py)."""
    async with Payer(paid_network, "main") as made:
        if "main" not in paid_network.paid_before:
            await made.session(await paid_worker.price("fixed"))
            paid_network.paid_before.add("main")
        yield made


@pytest.fixture(scope="session")
def node_network(network_kind: str, request: pytest.FixtureRequest) -> Iterator[NodeNetwork]:
    """A running network on a chain with a gateway node, shared by the tests."""
    binary = request.config.getoption("--go-livepeer")
    made = EmbeddedNode() if network_kind == "embedded" else GoNode(Path(binary).expanduser().resolve())
    with made as running:
        yield running


@pytest.fixture
async def node_worker(node_network: NodeNetwork) -> AsyncIterator[Worker]:
    """A bare HTTP application for it."""
    async with Worker(node_network) as made:
        yield made
