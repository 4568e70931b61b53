"""One gateway under many calls at once: loops of every kind, threads, forks, and its own closing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from livepeer.client import ConnectionFailed, Gateway, LivepeerError, NoOrchestratorError, StreamError

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
PATIENCE = 60.0  # seconds for what takes a moment on an idle machine


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[arg-type]
    return loop


def _debugging() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = PATIENCE
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "debugging": _debugging,
}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = _eager
if sys.platform != "win32":
    LOOPS["uvloop"] = _uvloop
each_loop = pytest.mark.parametrize("kind", LOOPS)


async def _idle(orch: Any) -> None:
    """Wait until nothing is left on this loop but the caller."""
    async with asyncio.timeout(PATIENCE):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
    await orch.wait_async(lambda: orch.connections == 0, "no connection is left")


@each_loop
@pytest.mark.parametrize("mode", ["", "p-"])
def test_a_thousand_calls_at_once(orch: Any, kind: str, mode: str) -> None:
    count = 1000 if (kind, mode) == ("asyncio", "") else 50

    async def main() -> None:
        async with Gateway(orch_url=orch.url) as gateway:
            calls = (
                gateway.run_async(f"{mode}echo", input=number, timeout=PATIENCE) for number in range(count)
            )
            assert await asyncio.gather(*calls) == list(range(count))
            assert sum(seen.path == "/discovery" for seen in orch.seen) == 1
            assert not orch.sessions
        await _idle(orch)

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())


@each_loop
def test_every_verb_on_loops_of_every_kind(tls_orch: Any, kind: str) -> None:
    async def main() -> None:
        gateway = Gateway(orch_url=tls_orch.url)
        assert await gateway.run_async("echo", input=1) == 1
        assert [event.data async for event in gateway.stream_async("p-tokens")] == ["0", "1", "2"]
        async with gateway.live("live") as session:
            await session.control.write({"n": 1})
            assert await anext(session.events) == {"got": {"n": 1}}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gateway.run_async("p-slow"), 0.3)
        assert gateway.run("echo", input=2) == 2  # on the loop of the synchronous verbs, from within this one
        assert {one.name for one in await gateway.capabilities_async()} >= {"echo", "live"}
        await gateway.aclose()

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())
    tls_orch.wait(lambda: not tls_orch.sessions, "the sessions are stopped")
    tls_orch.wait(lambda: tls_orch.connections == 0, "no connection is left")


def test_loops_threads_and_closing_at_once(orch: Any) -> None:
    """Whoever closes a shared gateway ends calls with an error that says so, and nothing else."""
    gateway = Gateway(orch_url=orch.url)
    over = threading.Event()
    ended: list[BaseException] = []
    counts = dict.fromkeys((*LOOPS, "sync"), 0)

    def check(error: LivepeerError) -> None:
        discovering = isinstance(error, NoOrchestratorError) and "closed on this side" in str(error)
        if not discovering and not isinstance(error, ConnectionFailed | StreamError):
            ended.append(error)

    async def calls(kind: str) -> None:
        async def one(number: int) -> None:
            while not over.is_set():
                try:
                    assert await gateway.run_async("p-echo", input=number) == number
                    counts[kind] += 1
                except LivepeerError as error:
                    check(error)

        await asyncio.gather(*map(one, range(4)))

    def on_a_loop(kind: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
            runner.run(calls(kind))

    def synchronous() -> None:
        while not over.is_set():
            try:
                assert len(gateway.run("tokens", input={"count": 3})) == 3
                counts["sync"] += 1
            except LivepeerError as error:
                check(error)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        running = [pool.submit(on_a_loop, kind) for kind in LOOPS]
        running += [pool.submit(synchronous) for _ in range(4)]
        try:
            for _ in range(8):
                before = dict(counts)
                orch.wait(
                    lambda seen=before: (
                        all(counts[kind] > seen[kind] for kind in counts)
                        or any(one.done() for one in running)
                    ),
                    f"everybody gets through, {counts}",
                    PATIENCE,
                )
                gateway.close()
        finally:
            over.set()
        for one in running:
            one.result(PATIENCE)
    gateway.close()
    assert not ended
    orch.wait(lambda: not orch.sessions, "the sessions are stopped")
    orch.wait(lambda: orch.connections == 0, "no connection is left")


def test_two_loops_that_close_at_once(orch: Any) -> None:
    """Each would wait for the other, and stand still meanwhile."""
    gateway = Gateway(orch_url=orch.url)
    both = threading.Barrier(2)

    async def main() -> None:
        assert await gateway.run_async("echo", input=1) == 1
        both.wait(PATIENCE)
        gateway.close()
        both.wait(PATIENCE)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(asyncio.run, main()) for _ in range(2)]:
            one.result(PATIENCE)
    orch.wait(lambda: orch.connections == 0, "no connection is left")


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_closing_while_another_loop_ends(orch: Any, how: str) -> None:
    """A loop that stops for good doesn't hold up who wants its connections closed."""
    gateway = Gateway(orch_url=orch.url)
    loop = asyncio.new_event_loop()
    asked = threading.Event()

    async def main() -> None:
        assert await gateway.run_async("echo", input=1) == 1
        ready.set()
        await asyncio.to_thread(asked.wait, PATIENCE)
        loop.stop()  # in the same turn in which the closing begins

    ready = threading.Event()

    def serve() -> None:
        task = loop.create_task(main())
        loop.run_forever()
        assert task.done()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE)
    asked.set()
    if how == "close":
        gateway.close()
    else:
        asyncio.run(gateway.aclose())
    thread.join(PATIENCE)
    assert not thread.is_alive()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(gateway.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    orch.wait(lambda: orch.connections == 0, "no connection is left")


@posix
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_forks_in_the_midst_of_calls(orch: Any, silent: Any, loop: str) -> None:
    """Threads and a loop keep calling while the process forks and spawns; each child calls, too."""
    silent(
        """
        import asyncio, multiprocessing, os, sys, threading, time, warnings
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12
        warnings.filterwarnings("ignore", ".*policy.*", DeprecationWarning)  # of Python 3.14
        if sys.argv[2] == "uvloop":
            import uvloop
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        from livepeer.client import Gateway
        gw = Gateway(orch_url=sys.argv[1], timeout=60)
        over = threading.Event()
        done = []

        def calls():
            while not over.is_set():
                assert gw.run("p-echo", input=1) == 1
                assert [e.data for e in gw.stream("tokens", input={"count": 2})] == ["0", "1"]
                done.append("sync")

        async def calls_async():
            while not over.is_set():
                assert await asyncio.gather(*(gw.run_async("echo", input=n) for n in range(3))) == [0, 1, 2]
                done.append("async")

        threads = [threading.Thread(target=calls) for _ in range(4)]
        threads.append(threading.Thread(target=lambda: asyncio.run(calls_async())))
        for thread in threads: thread.start()
        for number in range(6):
            before = len(done)
            while len(done) < before + 5 and all(thread.is_alive() for thread in threads): time.sleep(0.001)
            if not (pid := os.fork()):
                assert gw.run("echo", input=number) == number
                if number % 2:
                    assert asyncio.run(gw.run_async("p-echo", input=number)) == number
                    gw.close()
                if number % 3:
                    os._exit(0)
                sys.exit(0)
            deadline = time.monotonic() + 60
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline:
                    os.kill(pid, 9)
                    over.set()
                    sys.exit(f"child {number} hangs")
                time.sleep(0.002)
            assert ended[1] == 0, (number, ended)
        before = {kind: done.count(kind) for kind in ("sync", "async")}
        while any(done.count(kind) < before[kind] + 3 for kind in before): time.sleep(0.001)
        over.set()
        for thread in threads: thread.join()
        """,
        orch.url,
        loop,
    )
    orch.wait(lambda: not orch.sessions, "the sessions are stopped")
    orch.wait(lambda: orch.connections == 0, "no connection is left")


@pytest.mark.parametrize("verb", ["run", "run_async"])
def test_exit_while_a_name_server_does_not_answer(silent: Any, verb: str) -> None:
    """Nobody waits for the thread that does. (No name server can be made to hang here.)"""
    out = silent(
        """
        import asyncio, socket, sys, threading
        socket.getaddrinfo = lambda host, *_, **__: threading.Event().wait()
        from livepeer.client import DeadlineExceeded, Gateway
        gw = Gateway(orch_url="https://orchestrator.invalid:8935", timeout=0.2)
        try:
            gw.run("echo") if sys.argv[1] == "run" else asyncio.run(gw.run_async("echo"))
        except DeadlineExceeded:
            print("in time")
        """,
        verb,
    )
    assert out == "in time\n"


@pytest.mark.parametrize("what", ["headers", "input"])
@pytest.mark.parametrize("verb", ["run", "run_async"])
def test_exit_while_a_function_of_the_callers_never_returns(silent: Any, verb: str, what: str) -> None:
    """One that makes headers, or an input that is read: nobody waits for their threads."""
    out = silent(
        """
        import asyncio, os, sys, threading
        from livepeer.client import DeadlineExceeded, Gateway
        verb, what = sys.argv[1:]
        gw = Gateway(
            discovery_url="http://127.0.0.1:9/list",
            discovery_headers=lambda: threading.Event().wait(),
            timeout=0.2,
        )
        pipe = os.fdopen(os.pipe()[0], "rb") if what == "input" else None
        try:
            if verb == "run_async":
                asyncio.run(asyncio.wait_for(gw.run_async("echo", input=pipe), 0.4))
            elif pipe is None:
                gw.run("echo")
            else:
                thread = threading.Thread(target=gw.run, args=["echo"], kwargs={"input": pipe}, daemon=True)
                thread.start()
                raise TimeoutError
        except TimeoutError:
            print("in time")
        sys.stdout.flush()
        """,
        verb,
        what,
    )
    assert out == "in time\n"


@posix
def test_too_many_open_files_are_this_machines_fault(orch: Any, silent: Any) -> None:
    out = silent(
        """
        import os, resource, sys
        from livepeer.client import ConnectionFailed, Gateway, NoOrchestratorError
        gw = Gateway(orch_url=sys.argv[1])
        assert gw.run("echo", input=1) == 1
        gw.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True: taken.append(os.dup(0))
        except OSError: pass
        try:
            gw.run("echo", input=1)
        except (ConnectionFailed, NoOrchestratorError) as error:  # the list may be too old by now
            text = str(error)
        for one in taken: os.close(one)
        assert gw.run("echo", input=2) == 2
        print("Too many open files" in text, "ulimit -n" in text)
        """,
        orch.url,
    )
    assert out == "True True\n"


def test_calls_leave_nothing_behind(orch: Any, silent: Any) -> None:
    """`./dev bench growth` looks at 100,000 of them."""
    out = silent(
        """
        import asyncio, gc, sys
        from livepeer.client import CapabilityError, CapabilityNotFound, DeadlineExceeded, Gateway
        gw = Gateway(orch_url=sys.argv[1])

        async def calls(count):
            async def one(number):
                await gw.run_async("p-echo", input=number)
                await asyncio.to_thread(gw.run, "echo", input=number)
                async with gw.stream_async("tokens", input={"endless": True}) as stream:
                    await anext(stream)
                for kind, name, options in (
                    (CapabilityError, "answer", {"input": {"status": 400}}),
                    (DeadlineExceeded, "slow", {"timeout": 0.02}),
                    (DeadlineExceeded, "p-slow", {"timeout": 0.02}),
                ):
                    try: await gw.run_async(name, **options)
                    except kind: pass
            for _ in range(count // 8):
                await asyncio.gather(*map(one, range(8)))
            await gw.aclose()
            while len(asyncio.all_tasks()) > 1: await asyncio.sleep(0.01)
            gc.collect()
            return len(gc.get_objects())

        async def main():
            await calls(16)
            before = await calls(16)
            more = await calls(40) - before
            for _ in range(100):  # what another thread is still ending is not left behind
                if more < 40 * 6: break
                await asyncio.sleep(0.1)
                gc.collect()
                more = len(gc.get_objects()) - before
            print(more)

        asyncio.run(main(), debug=False)
        """,
        orch.url,
    )
    assert int(out) < 40 * 6, "less than one object for each call"
    assert orch.reserved == orch.stopped
    orch.wait(lambda: orch.connections == 0, "no connection is left")
