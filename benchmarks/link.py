"""Live video over a link with 50 ms delay and 1 % loss, each way, between client and orchestrator."""

from __future__ import annotations

from namespaces import FAR, LossyLink, NoLink
from options import Options, Size
from rows import Row, percentile
from side import measure
from stage import APP, Stage

__all__ = ["main"]

_DELAY, _LOSS = 0.05, 0.01
_SIZE = Size(640, 360, 30)


def main(options: Options) -> list[Row]:
    """Measure ours where such a link can be made; else say why not."""
    try:
        with LossyLink(_DELAY, _LOSS) as link:
            with link.far():
                stage = Stage(options.go, FAR)
                stage.__enter__()
            try:
                found = measure(
                    "ours",
                    {
                        "task": "live",
                        "orch": stage.orch,
                        "app": APP,
                        "width": _SIZE.width,
                        "height": _SIZE.height,
                        "fps": _SIZE.fps,
                        "seconds": options.seconds,
                    },
                    timeout=options.seconds + 60,
                    prefix=link.prefix,
                )
            finally:
                with link.far():
                    stage.__exit__(None, None, None)
    except NoLink as reason:
        print(f"No link with delay and loss can be made here: {reason}.")
        return []
    latencies = found["latencies"]
    share = 100 * link.lost / max(link.lost + link.carried, 1)
    return [
        Row("opening the session", found["open"], "ms", note=f"{share:.1f} % of the packets were lost"),
        Row("open to first output frame", found["first_frame"], "ms"),
        Row("glass to glass p50", percentile(latencies, 50), "ms", note="the link's own share is 100 ms"),
        Row("glass to glass p95", percentile(latencies, 95), "ms"),
        Row("glass to glass max, whole run", found["max"], "ms"),
        Row("CPU per second of stream", found["cpu"], "s"),
        Row("frames lost", found["written"] - found["received"], "", most=0),
    ]
