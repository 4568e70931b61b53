"""A gateway's life: never closed, forked, interrupted, pickled, shared by threads, loops and processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import pickle
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from livepeer.client import ConnectionFailed, Gateway, LivepeerError

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# A script that never closes anything


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("print(gw.run('echo', input=1))", id="run"),
        pytest.param("s = gw.stream('tokens', input={'endless': 1}); print(next(s).data + '1')", id="stream"),
        pytest.param(
            "s = gw.stream('p-tokens', input={'endless': 1}); print(next(s).data + '1')", id="session"
        ),
        pytest.param("for e in gw.stream('p-tokens', input={'endless': 1}): break\nprint(1)", id="break"),
        pytest.param("gw.run('p-echo', input=1)\nprint(1)", id="persistent"),
        pytest.param("import asyncio; print(asyncio.run(gw.run_async('echo', input=1)))", id="async"),
        pytest.param(
            "import asyncio\nfor _ in range(3): n = asyncio.run(gw.run_async('p-echo', input=1))\nprint(n)",
            id="several-loops",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n s = await gw.stream_async('tokens', input={'endless': 1})\n"
            " await anext(s)\n return s\nkept = asyncio.run(main())\nprint(1)",
            id="async-stream",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n"
            " s = await gw.stream_async('p-tokens', input={'endless': 1})\n"
            " await anext(s)\nasyncio.run(main())\nprint(1)",
            id="async-session",
        ),
        pytest.param(
            "import asyncio\nfrom livepeer.client import CapabilityError\n"
            "try: asyncio.run(gw.run_async('p-answer', input={'status': 400}))\n"
            "except CapabilityError: print(1)",
            id="async-failure",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n"
            " try: await asyncio.wait_for(gw.run_async('p-slow'), 0.2)\n except TimeoutError: print(1)\n"
            "asyncio.run(main())",
            id="async-cancelled",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n t = asyncio.create_task(gw.run_async('p-slow'))\n"
            " await asyncio.sleep(0.2)\nasyncio.run(main())\nprint(1)",
            id="async-left-running",
        ),
        pytest.param("del gw; print(1)", id="unused"),
        pytest.param(
            "import gc\nclass Holder: pass\nfor _ in range(2):\n holder = Holder()\n holder.me = holder\n"
            " holder.gateway = Gateway(orch_url=sys.argv[1])\n n = holder.gateway.run('echo', input=1)\n"
            " del holder\n gc.collect()\nprint(n)",
            id="in-a-cycle",
        ),
        pytest.param(
            "for _ in range(3): n = Gateway(orch_url=sys.argv[1]).run('echo', input=1)\nprint(n)",
            id="short-form",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n for _ in range(3):\n"
            "  n = await Gateway(orch_url=sys.argv[1]).run_async('p-echo', input=1)\n return n\n"
            "print(asyncio.run(main()))",
            id="short-form-async",
        ),
        pytest.param("print(gw.run('echo', input=1)); del gw", id="deleted"),
    ],
)
def test_a_script_that_closes_nothing_is_silent_and_leaves_nothing(orch: Any, silent: Any, body: str) -> None:
    out = silent(
        f"import sys\nfrom livepeer.client import Gateway\ngw = Gateway(orch_url=sys.argv[1])\n{body}",
        orch.url,
    )
    assert out.split()[-1].lstrip("0") == "1"
    orch.wait_until_left()


@posix
@pytest.mark.parametrize("ending", ["", "stream.close()\n", "gw.close()\n", "list(stream)\n"])
def test_the_same_in_an_interpreter_of_its_own(orch: Any, script: Any, ending: str) -> None:
    """The scripts above are forked from a process that has loaded everything; this starts from nothing."""
    running = script(
        "import asyncio, sys\nfrom livepeer.client import Gateway\ngw = Gateway(orch_url=sys.argv[1])\n"
        "gw.run('p-echo', input=1)\nasyncio.run(gw.run_async('p-echo', input=1))\n"
        f"stream = gw.stream('p-tokens', input={{'endless': True}})\nnext(stream)\n{ending}",
        orch.url,
        fresh=True,
    )
    interrupted = ending.startswith("list")
    if interrupted:
        orch.wait_note("tokens written")
        running.interrupt()
    done = running.finish()
    if interrupted:
        assert (done.code, done.err.splitlines()[-1]) == (-2, "KeyboardInterrupt")
        assert "Warning" not in done.err
    else:
        assert (done.code, done.err) == (0, "")
    orch.wait_until_left()
    assert orch.stopped == 3


def test_exit_with_calls_open_in_daemon_threads_is_silent(orch: Any, script: Any) -> None:
    running = script(
        """
        import sys, threading
        from livepeer.client import Gateway
        gw = Gateway(orch_url=sys.argv[1])
        for name in ("slow", "p-slow"):
            threading.Thread(target=gw.run, args=(name,), daemon=True).start()
        stream = gw.stream("tokens", input={"endless": True})
        threading.Thread(target=list, args=(stream,), daemon=True).start()
        def repeat():
            while True:
                gw.run("echo", input=1)
        threading.Thread(target=repeat, daemon=True).start()
        gw.run("tokens", input={"gate": "main"})
        """,
        orch.url,
    )
    orch.wait_note("slow begun", 2)
    orch.wait_note("tokens written")
    orch.gate("main").open()
    done = running.finish()
    assert (done.code, done.err) == (0, "")
    orch.wait_until_left()


# fork

FORK = """
import os, sys, threading, time, warnings
from livepeer.client import Gateway, LivepeerError
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: threads and fork
gw = Gateway(orch_url=sys.argv[1])

def reap(pid):
    deadline = time.monotonic() + 8
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            sys.exit("the child hangs")
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(done[1])

ENDS = ("os._exit", "sys.exit", "exception", "end")

def end(how):
    if how == "os._exit":
        os._exit(7)
    if how == "sys.exit":
        sys.exit(7)
    if how == "exception":
        sys.excepthook = lambda *_: os.write(1, b"")
        raise ValueError

def check(code, how):
    assert code == {"os._exit": 7, "sys.exit": 7, "exception": 1, "end": 0}[how], (code, how)
"""


@posix
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_idle_connections_survive_every_way_a_child_can_end(request: Any, scheme: str, silent: Any) -> None:
    server = request.getfixturevalue("orch" if scheme == "http" else "tls_orch")
    silent(
        FORK
        + """
gw.run("echo", input=1)
for how in ENDS:
    for child_calls in (False, True):
        pid = os.fork()
        if pid == 0:
            break
        check(reap(pid), how)
        assert gw.run("echo", input=3, timeout=30) == 3
    if pid == 0:
        break
if pid == 0:
    if child_calls:
        assert gw.run("echo", input=2, timeout=30) == 2
    end(how)
else:
    print("parent")
""",
        server.url,
    )
    assert len(server.calls("echo")) == 1 + 4 * 3
    peers = {seen.peer for seen in server.calls("echo")}
    assert len(peers) == 5, "the parent keeps its connection, each child that calls has its own"


@posix
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_calls_in_flight_survive_every_way_a_child_can_end(request: Any, scheme: str, script: Any) -> None:
    server = request.getfixturevalue("orch" if scheme == "http" else "tls_orch")
    running = script(
        FORK
        + """
results = []
calls = [threading.Thread(target=lambda: results.append(gw.run("slow", timeout=60))) for _ in range(4)]
for call in calls: call.start()
streams = {(how, calls): gw.stream("tokens", input={"count": 1, "gate": "later"})
           for how in ENDS for calls in (False, True)}
for stream in streams.values(): next(stream)
sys.stdin.close()
while not os.path.exists(sys.argv[2]): time.sleep(0.002)
for how, child_calls in streams:
    pid = os.fork()
    if pid == 0:
        break
    check(reap(pid), how)
if pid == 0:
    if child_calls:
        assert gw.run("echo", input=2, timeout=30) == 2
        assert [e.data for e in gw.stream("tokens", input={"count": 2}, timeout=30)] == ["0", "1"]
    end(how)
else:
    assert gw.run("echo", input=3, timeout=30) == 3
    gw.run("open_gate", input="later", timeout=30)
    for stream in streams.values():
        assert [event.data for event in stream] == ["later"]
    gw.run("open_gate", input="slow", timeout=30)
    for call in calls: call.join(30)
    assert results == [{"slow": True}] * 4, results
""",
        server.url,
        str(request.getfixturevalue("tmp_path") / "go"),
    )
    server.wait_note("slow begun", 4)
    (request.getfixturevalue("tmp_path") / "go").touch()
    done = running.finish()
    assert (done.code, done.err) == (0, ""), done


@posix
@pytest.mark.parametrize("leave", ["with", "close", "del", "next", "globals"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_child_cannot_hurt_a_stream_of_its_parent(
    request: Any, silent: Any, leave: str, scheme: str
) -> None:
    server = request.getfixturevalue("orch" if scheme == "http" else "tls_orch")
    bodies = {
        "with": "with stream: sys.exit(0)",
        "close": "stream.close(); sys.exit(0)",
        "del": "del stream; import gc; gc.collect(); sys.exit(0)",
        "next": """
        try: next(stream)
        except LivepeerError as e: assert 'fork' in str(e), e
        else: sys.exit(3)
        sys.exit(0)""",
        "globals": "sys.exit(0)",
    }
    silent(
        FORK
        + f"""
for number in range(2):
    stream = gw.stream("p-tokens", input={{"count": 1, "gate": f"g{{number}}"}})
    first = next(stream)
    pid = os.fork()
    if pid == 0:
        {bodies[leave]}
    assert reap(pid) == 0
    gw.run("open_gate", input=f"g{{number}}", timeout=30)
    assert [event.data for event in stream] == ["later"]
    assert gw.run("echo", input=3, timeout=30) == 3
""",
        server.url,
    )
    server.wait_until_left()
    assert server.stopped == 2


@posix
@pytest.mark.parametrize("how", ["sys.exit", "exception", "os._exit"])
def test_a_fork_inside_a_running_loop_leaves_the_idle_connections_alone(
    orch: Any, silent: Any, how: str
) -> None:
    silent(
        FORK
        + f"""
import asyncio
async def main():
    await gw.run_async("echo", input=1)
    pid = os.fork()
    if pid == 0:
        end({how!r})
    check(reap(pid), {how!r})
    assert await gw.run_async("echo", input=3, timeout=30) == 3
asyncio.run(main())
""",
        orch.url,
    )


@posix
def test_multiprocessing_by_fork(orch: Any, silent: Any) -> None:
    silent(
        FORK
        + """
import multiprocessing
def square(job):
    gateway, number = job
    return (gateway or gw).run("echo", input=number * number)
gw.run("echo", input=0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    jobs = [(gw if n % 2 else None, n) for n in range(6)]
    assert pool.map(square, jobs) == [n * n for n in range(6)]
    pool.close()
    pool.join()
assert gw.run("echo", input=7) == 7
""",
        orch.url,
    )


def test_multiprocessing_by_spawn(orch: Any, silent: Any, tmp_path: Path) -> None:
    source = tmp_path / "spawning.py"
    source.write_text(
        """
import multiprocessing, sys
from livepeer.client import Gateway
def square(job):
    gw, number = job
    return gw.run("echo", input=number * number)
if __name__ == "__main__":
    gw = Gateway(orch_url=sys.argv[1])
    gw.run("echo", input=0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(square, [(gw, n) for n in range(3)]) == [n * n for n in range(3)]
        pool.close()
        pool.join()
    assert gw.run("echo", input=7) == 7
"""
    )
    silent(
        "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))",
        str(source),
        orch.url,
    )


# Ctrl-C


@posix
@pytest.mark.parametrize("how", ["run", "stream", "asyncio", "second call", "caught"])
@pytest.mark.parametrize("mode", ["", "p-"])
def test_ctrl_c_ends_the_call_and_the_worker_notices(orch: Any, script: Any, how: str, mode: str) -> None:
    bodies = {
        "run": f"gw.run('{mode}slow')",
        "stream": f"for event in gw.stream('{mode}tokens', input={{'endless': True}}): pass",
        "asyncio": f"import asyncio; asyncio.run(gw.run_async('{mode}slow'))",
        "second call": f"gw.run('echo')\ns = gw.stream('{mode}tokens', input={{'endless': True}})\nlist(s)",
        "caught": f"try: gw.run('{mode}slow')\n"
        "except KeyboardInterrupt:\n print(gw.run('echo', input=5))\n raise",
    }
    running = script(
        f"import sys\nfrom livepeer.client import Gateway\ngw = Gateway(orch_url=sys.argv[1])\n{bodies[how]}",
        orch.url,
    )
    name = "tokens" if "tokens" in bodies[how] else "slow"
    orch.wait_note("tokens written" if name == "tokens" else "slow begun")
    began = time.monotonic()
    running.interrupt()
    done = running.finish()
    assert time.monotonic() - began < 10  # of the minute that the worker would take
    assert done.code in (-2, 130)
    assert done.err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Warning" not in done.err
    assert "Exception ignored" not in done.err
    assert "never" not in done.err
    assert done.out == ("5\n" if how == "caught" else "")
    orch.wait_note(f"{mode}{name} gone")
    orch.wait_until_left()


@posix
def test_ctrl_c_while_a_session_is_being_reserved(orch: Any, script: Any) -> None:
    orch.after_reserve = orch.gate("reserved")
    running = script(
        "import sys\nfrom livepeer.client import Gateway\nGateway(orch_url=sys.argv[1]).run('p-echo')",
        orch.url,
    )
    orch.wait_note("reserved", timeout=20)
    running.interrupt()
    orch.gate("reserved").open()
    done = running.finish()
    assert done.code in (-2, 130)
    orch.wait(lambda: not orch.sessions, "the session is stopped")


# threads, loops, notebooks


def test_many_threads_share_a_gateway(orch: Any, gateway: Gateway) -> None:
    def both(number: int) -> tuple[Any, list[Any]]:
        with gateway.stream("tokens", input={"count": number % 5}) as stream:
            return gateway.run("echo", input=number), [event.data for event in stream]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        results = list(pool.map(both, range(64)))
    assert results == [(n, [str(i) for i in range(n % 5)]) for n in range(64)]
    assert sum(1 for seen in orch.seen if seen.path == "/discovery") <= 2


def test_many_event_loops_share_a_gateway(orch: Any) -> None:
    gateway = Gateway(orch_url=orch.url)
    loops: list[weakref.ref[Any]] = []

    async def call(number: int) -> Any:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await gateway.run_async("echo", input=number)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: asyncio.run(call(n)), range(24))) == list(range(24))
    orch.wait(lambda: orch.connections == 0, "every loop closed its connections")
    gc.collect()
    alive = [loop for loop in loops if loop() is not None]
    assert len(alive) <= 1, "the gateway holds loops that are closed, and not just the last"


async def test_a_synchronous_verb_works_inside_a_running_loop(gateway: Gateway) -> None:
    assert gateway.run("echo", input=1) == 1
    assert [event.data for event in gateway.stream("tokens")] == ["0", "1", "2"]


def test_a_notebook(orch: Any) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        f"from livepeer.client import Gateway\ngw = Gateway(orch_url={orch.url!r})",
        "gw.run('echo', input=1)",
        "[event.data for event in gw.stream('tokens')]",
        "await gw.run_async('echo', input=2)",
        "import livepeer.client as c\nc.Blob(b'png', 'image/png')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    kernel = {"kernel_name": "python3"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "")
        try:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nbclient.NotebookClient(notebook, timeout=60, **kernel).execute()
        except Exception as error:
            if type(error).__name__ == "NoSuchKernel":
                pytest.skip("no kernel is installed")
            raise
    outputs = [cell.outputs[0].data for cell in notebook.cells if cell.outputs]
    assert [output.get("text/plain") for output in outputs[:3]] == ["1", "['0', '1', '2']", "2"]
    assert outputs[3]["image/png"].strip() == "cG5n"


# pickling, closing


@pytest.mark.parametrize("tls", ["pin", "insecure"])
def test_a_gateway_can_be_pickled(orch: Any, tls: str) -> None:
    with Gateway(orch_url=orch.url, tls=tls, timeout=30) as gateway:
        assert gateway.run("echo", input=1) == 1
        with pickle.loads(pickle.dumps(gateway)) as copy:
            assert repr(copy) == repr(gateway)
            assert copy.run("echo", input=2) == 2


def test_a_closed_gateway_opens_again(orch: Any, verbs: Any) -> None:
    for _ in range(2):
        assert verbs.run("echo", input=1) == 1
        if verbs.name == "sync":
            verbs.gateway.close()
        else:
            verbs.runner.run(verbs.gateway.aclose())
        orch.wait(lambda: orch.connections == 0, "the connections are closed")


@pytest.mark.parametrize("what", ["run", "stream"])
@pytest.mark.parametrize("mode", ["", "p-"])
def test_closing_ends_the_calls_that_are_open(orch: Any, what: str, mode: str) -> None:
    gateway = Gateway(orch_url=orch.url)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            if what == "run":
                gateway.run(f"{mode}slow")
            else:
                list(gateway.stream(f"{mode}tokens", input={"endless": True}))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    orch.wait_note("slow begun" if what == "run" else "tokens written")
    gateway.close()
    thread.join(30)
    assert not thread.is_alive()
    orch.wait(lambda: not orch.sessions, "the session is stopped")
    gateway.close()
    orch.wait(lambda: orch.connections == 0, "no connection is left")
    assert not caught or isinstance(caught[0], LivepeerError), caught
    if what == "run":
        assert isinstance(caught[0], ConnectionFailed)


def test_close_inside_a_running_loop(orch: Any) -> None:
    async def main() -> None:
        gateway = Gateway(orch_url=orch.url)
        assert await gateway.run_async("echo", input=1) == 1
        await asyncio.to_thread(gateway.run, "echo")
        gateway.close()
        await orch.wait_async(lambda: orch.connections == 0, "the connections are closed")

    asyncio.run(main())


def test_aclose_closes_the_connections_of_every_loop(orch: Any) -> None:
    async def main() -> None:
        async with Gateway(orch_url=orch.url) as gateway:
            assert await asyncio.to_thread(gateway.run, "echo", input=1) == 1
            assert await gateway.run_async("echo", input=1) == 1
        await orch.wait_async(lambda: orch.connections == 0, "the connections are closed")

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:asynchronous generator:ResourceWarning")
def test_the_loop_can_lose_its_generators_and_go_on(orch: Any) -> None:
    """`shutdown_asyncgens` closes the connections; a later call on that loop opens others."""
    gateway = Gateway(orch_url=orch.url)

    async def main() -> None:
        assert await gateway.run_async("echo", input=1) == 1

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    orch.wait(lambda: orch.connections == 0, "the connections are closed")
    loop.run_until_complete(main())
    loop.run_until_complete(gateway.aclose())
    loop.close()


def test_the_process_has_one_thread_for_all_gateways(orch: Any) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "livepeer-client"}
    for _ in range(3):
        with Gateway(orch_url=orch.url) as gateway:
            gateway.run("echo")
    after = {thread for thread in threading.enumerate() if thread.name == "livepeer-client"}
    assert len(after | before) == 1
    assert sys.is_finalizing() is False
