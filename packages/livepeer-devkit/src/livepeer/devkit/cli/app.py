"""The command's table of contents; each command's module is loaded when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from livepeer.trickle.errors import ConfigurationError, LivepeerError, MediaError

from .._version import __version__
from .output import complain

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="livepeer",
    help="Call and serve capabilities on the Livepeer network, and develop for it on this machine.",
    epilog="Exit codes: 0 worked, 1 failed, 2 can't be done as asked, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OrchUrl = Annotated[
    list[str] | None,
    typer.Option("--orch-url", help="An orchestrator; repeat it for several. Else LIVEPEER_* variables."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]


def run() -> None:
    """Run the command; the exit code says how it went."""
    try:
        app()
    except (ConfigurationError, MediaError) as error:
        complain(str(error))
        sys.exit(2)
    except LivepeerError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option(help="The folder for output.png and output.mp4.")] = Path(
        "livepeer-demo"
    ),
    video: Annotated[
        Path | None, typer.Option(help="Your own video instead of the one made here (at most 30 s of it).")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Your own picture instead of the one made here.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="How long the video made here is.")] = 5.5,
    orch_url: Annotated[
        str | None, typer.Option(help="Use this orchestrator (go-livepeer) instead of the embedded one.")
    ] = None,
    orch_secret: Annotated[
        str | None, typer.Option(envvar="LIVEPEER_ORCH_SECRET", help="That orchestrator's -orchSecret.")
    ] = None,
    json: Json = False,
) -> None:
    """Do the real thing three ways on this machine: run, stream, live; and check every result.

    Starts an embedded network with sample capabilities, sends a text and a picture, reads tokens one at a
    time, and puts live video with sound through a filter that is changed midway. Leaves output.png and
    output.mp4.
    """
    from .demo import demo as command

    command(
        out=out,
        video=video,
        image=image,
        seconds=seconds,
        orch_url=orch_url,
        orch_secret=orch_secret,
        as_json=json,
    )


@app.command()
def dev(
    *,
    port: Annotated[int, typer.Option(help="The orchestrator's port; 0 is any free one.")] = 0,
    secret: Annotated[str | None, typer.Option(help="What runners register with; else a random one.")] = None,
    samples: Annotated[bool, typer.Option(help="Serve the sample capabilities.")] = True,
    paid: Annotated[
        bool, typer.Option("--paid", help="Calls cost play money, and there are signers.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a Livepeer network on this machine, say what to export, and run until Ctrl-C."""
    from .dev import dev as command

    command(port, secret, samples, json, paid=paid)


@app.command()
def capabilities(orch_url: OrchUrl = None, json: Json = False) -> None:
    """List what the network can do now."""
    from .calls import capabilities as command

    command(orch_url, json)


@app.command()
def explain(
    capability: Annotated[str, typer.Argument(help="The capability's name.")],
    *,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    live: Annotated[bool, typer.Option("--live", help="For a live session instead of a call.")] = False,
    max_price: Annotated[
        str | None, typer.Option(help='The most that it may cost, such as "900 gwei/second".')
    ] = None,
    orch_url: OrchUrl = None,
    json: Json = False,
) -> None:
    """Show where a call would go and why: every candidate, and what stands against the others."""
    from .calls import explain as command

    command(capability, model=model, live=live, max_price=max_price, orch_url=orch_url, as_json=json)


@app.command()
def schema(
    capability: Annotated[str, typer.Argument(help="The capability's name.")],
    *,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    pay: Annotated[bool, typer.Option("--pay", help="Pay for the answer, where it isn't free.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds in total.")] = 30.0,
    orch_url: OrchUrl = None,
) -> None:
    """Print what a capability takes and gives, as JSON Schema; its worker may be asked for it."""
    from .calls import schema as command

    command(capability, model=model, pay=pay, timeout=timeout, orch_url=orch_url)


@app.command()
def doctor(
    *,
    token: Annotated[
        str | None, typer.Option(help="What a dashboard hands out; better in LIVEPEER_TOKEN, unseen.")
    ] = None,
    signer_url: Annotated[list[str] | None, typer.Option(help="A signer; repeat it for several.")] = None,
    discovery_url: Annotated[
        list[str] | None, typer.Option(help="A list of orchestrators; repeat it for several.")
    ] = None,
    gateway_url: Annotated[
        list[str] | None, typer.Option(help="A gateway node; repeat it for several.")
    ] = None,
    orch_url: OrchUrl = None,
    sign: Annotated[
        bool, typer.Option("--sign", help="Ask the signer for one ticket, too, which is thrown away.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the configuration, signers, funds and orchestrators, and list what can be called at what price.

    Nothing is called and nothing is paid. The exit code is 1 when something doesn't work.
    """
    from .doctor import doctor as command

    command(
        sign=sign,
        as_json=json,
        token=token,
        signer_url=signer_url,
        discovery_url=discovery_url,
        gateway_url=gateway_url,
        orch_url=orch_url,
    )


@app.command(name="run")
def run_capability(
    capability: Annotated[str, typer.Argument(help="The capability's name.")],
    input: Annotated[
        str | None, typer.Argument(help="JSON, or @FILE for a file's content, or - for standard input.")
    ] = None,
    *,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result to a file.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds in total.")] = 600.0,
    orch_url: OrchUrl = None,
) -> None:
    """Call a capability and print its result: text as it is, JSON as JSON, anything else as its bytes."""
    from .calls import run as command

    command(capability, input, model=model, output=output, timeout=timeout, orch_url=orch_url)


@app.command()
def serve(
    target: Annotated[str, typer.Argument(metavar="FILE:CLASS", help="A pipeline, as my_runner.py:Upscale.")],
    *,
    name: Annotated[
        str | None, typer.Option(help="The capability's name; the class's own when absent.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 is any free one.")] = 8000,
    capacity: Annotated[int | None, typer.Option(min=1, help="Calls or sessions at once.")] = None,
    orch_url: Annotated[
        str | None, typer.Option(envvar="LIVEPEER_ORCH_URL", help="The orchestrator to register with.")
    ] = None,
    orch_secret: Annotated[
        str | None, typer.Option(envvar="LIVEPEER_ORCH_SECRET", help="Its -orchSecret.")
    ] = None,
    register: Annotated[
        list[str] | None,
        typer.Option(help="How to register: live-runner (if absent) or byoc; say it twice for both."),
    ] = None,
) -> None:
    """Serve a pipeline, and register it with an orchestrator when one is named."""
    from .serve import serve as command

    command(
        target,
        name=name,
        host=host,
        port=port,
        capacity=capacity,
        orch_url=orch_url,
        secret=orch_secret,
        register=register or ["live-runner"],
    )
