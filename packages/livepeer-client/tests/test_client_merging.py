"""One list of capabilities from what orchestrators say, without sockets."""

from __future__ import annotations

from typing import Any

from livepeer.client import Gpu, Price, Rejection
from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo
from livepeer.client._merging import Entry, byoc_entry, byoc_names, merge, model_entries, runner_entry
from livepeer.client.catalogue import Runner
from livepeer.client.offers import Offer

HERE, THERE = "https://here:8935", "https://there:8935"


def info(*, on_chain: bool = False) -> Any:
    told = OrchestratorInfo()
    if on_chain:
        told.ticket_params.recipient = b"\1" * 20
    return told


def listed(told: Any, number: int, name: str, wei: int, units: int = 1) -> None:
    told.capabilities_prices.add(capability=number, constraint=name, pricePerUnit=wei, pixelsPerUnit=units)


def model(told: Any, number: int, name: str, capacity: int = 0, in_use: int = 0) -> None:
    constraint = told.capabilities.constraints.PerCapability[number].models[name]
    constraint.capacity, constraint.capacityInUse = capacity, in_use


def test_the_names_of_byoc_are_prices() -> None:
    told = info()
    listed(told, 37, "sentiment", 7)
    listed(told, 37, "", 7)
    listed(told, 27, "a/model", 7)
    assert byoc_names(told) == {"sentiment": None}, "offchain nothing is paid, whatever is listed"
    told = info(on_chain=True)
    listed(told, 37, "sentiment", 7, 2)
    listed(told, 37, "free", 0)
    listed(told, 37, "odd", 7, 0)
    assert byoc_names(told) == {"sentiment": Price(4, "seconds"), "free": None, "odd": None}


def test_of_byoc_only_what_is_free_is_known() -> None:
    assert byoc_entry("x", HERE, None, Offer(HERE, 2)) == Entry("x", "byoc", "single-shot", HERE, None, 2)
    assert byoc_entry("x", HERE, None, Offer(HERE, 0)).available == 0
    assert byoc_entry("x", HERE, None, None).available is None
    refused = Offer(HERE, rejection=Rejection(HERE, "it answered 500"))
    assert byoc_entry("x", HERE, Price(3, "seconds"), refused).price == Price(3, "seconds")
    assert byoc_entry("x", HERE, Price(3, "seconds"), refused).available is None
    priced = Offer(HERE, 4, Price(9, "seconds"), Rejection(HERE, "it asks for payment"))
    assert byoc_entry("x", HERE, Price(3, "seconds"), priced).price == Price(9, "seconds")
    assert byoc_entry("x", HERE, Price(3, "seconds"), priced).available == 4


def test_models_of_pipelines() -> None:
    told = info()
    model(told, 35, "external")
    model(told, 35, "managed", 1, 2)
    model(told, 35, "full", 0, 2)
    model(told, 27, "pictures", 3)
    model(told, 27, "taken", 0)
    model(told, 9, "none of ours")
    found = {entry.model: entry for entry in model_entries(told, HERE)}
    assert set(found) == {"external", "managed", "full", "pictures", "taken"}
    live = found["external"]
    assert (live.name, live.transport, live.mode) == ("live-video-to-video", "lv2v", "persistent")
    assert (live.capacity, live.available) == (None, None), "an external container says 0, and takes all"
    assert (found["managed"].capacity, found["managed"].available) == (3, 1)
    assert (found["full"].capacity, found["full"].available) == (2, 0)
    pictures = found["pictures"]
    assert (pictures.name, pictures.transport, pictures.mode) == ("text-to-image", "builtin", "single-shot")
    assert (pictures.capacity, pictures.available, pictures.price) == (3, 3, None)
    assert (found["taken"].capacity, found["taken"].available) == (0, 0)


def test_prices_of_models() -> None:
    told = info(on_chain=True)
    told.price_info.pricePerUnit, told.price_info.pixelsPerUnit = 5, 1
    for name in ("own", "other"):
        model(told, 27, name, 1)
        model(told, 35, name, 1)
    listed(told, 27, "own", 20)
    listed(told, 35, "default", 30, 4)
    found = {(entry.name, entry.model): entry.price for entry in model_entries(told, HERE)}
    assert found == {
        ("text-to-image", "own"): Price(20, "pixels"),
        ("text-to-image", "other"): Price(5, "pixels"),
        ("live-video-to-video", "own"): Price(8, "pixels"),
        ("live-video-to-video", "other"): Price(8, "pixels"),
    }
    assert str(Price(8, "pixels")) == "8 wei/pixel"


def test_the_gpu_of_a_model() -> None:
    told = info()
    model(told, 35, "noop", 1)
    hardware = told.hardware.add(pipeline="live-video-to-video", model_id="noop")
    hardware.gpu_info["1"].name = "second"
    gpu = hardware.gpu_info["0"]
    gpu.id, gpu.name, gpu.memory_total = "GPU-1", "RTX 4090", 24 << 30
    assert next(model_entries(told, HERE)).gpu == Gpu("GPU-1", "RTX 4090", 24 << 10)


def test_what_an_orchestrator_does_not_say() -> None:
    assert list(model_entries(OrchestratorInfo(), HERE)) == []
    assert byoc_names(OrchestratorInfo()) == {}


def test_orchestrators_are_put_together() -> None:
    gpu = Gpu("1", "one", 1)
    entries = [
        Entry("b", "byoc", "single-shot", HERE, None, 2, Price(9, "seconds")),
        Entry("b", "byoc", "single-shot", THERE, None, None, Price(7, "seconds"), gpu),
        Entry("a", "live-runner", "single-shot", HERE, 3, 1, Price(1, "fixed")),
        Entry("a", "live-runner", "single-shot", THERE, 2, 2, None, schema_url="https://x/s"),
        Entry("a", "live-runner", "persistent", THERE, 1, 1),
        Entry("v", "lv2v", "persistent", HERE, model="one"),
        Entry("v", "lv2v", "persistent", HERE, 4, 4, model="two"),
        Entry("v", "lv2v", "persistent", THERE, model="two"),
    ]
    found = merge(entries)
    assert [(one.name, one.mode, one.model) for one in found] == [
        ("a", "persistent", None),
        ("a", "single-shot", None),
        ("b", "single-shot", None),
        ("v", "persistent", "one"),
        ("v", "persistent", "two"),
    ]
    _, a, b, one, two = found
    assert (a.capacity, a.available, a.price, a.schema_url) == (5, 3, None, "https://x/s")
    assert a.orchestrators == (HERE, THERE)
    assert (b.capacity, b.available, b.price, b.gpu) == (None, 2, Price(7, "seconds"), gpu)
    assert (one.capacity, one.available) == (None, None)
    assert (two.capacity, two.available) == (4, 4)


def test_a_live_runner_without_places_has_none() -> None:
    runner = Runner(HERE, f"{HERE}/apps/1/app", "a", "single-shot", capacity=2, available=-1)
    assert runner_entry(runner).available == 0
