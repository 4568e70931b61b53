"""One unary gRPC call over one HTTP/2 connection, without I/O: bytes in, bytes out, and then an answer.

The frames are those of `h2`; what gRPC adds is small: five bytes before a message, a status in the trailers.
grpcio isn't used: it can't be told to accept the certificate that HTTP has pinned whatever its name, it
prints on stderr when loops end or the process forks, and forked children crash in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from yarl import URL

__all__ = ["BadAnswer", "Unary"]

_LARGEST = 4 * 1024 * 1024  # bytes of an answer; gRPC's own default
_STREAM = 1


class BadAnswer(Exception):
    """What came is no answer to a gRPC call; the text says why."""


class Unary:
    """One call.

    Args:
        url: The server.
        method: The path of the method.
        message: The serialized request; up to 16 KiB, the size of one frame.
        user_agent: What the caller calls itself.
        timeout: Seconds that the server may take; it is told.
    """

    def __init__(self, url: URL, method: str, message: bytes, *, user_agent: str, timeout: float) -> None:
        self.done: bool = False
        """Whether the answer is complete."""
        self.headers: Mapping[str, str] = {}
        """The answer's headers and trailers."""
        self._heard = False
        self._body = bytearray()
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._connection.initiate_connection()
        headers = [
            (":method", "POST"),
            (":scheme", url.scheme),
            (":authority", url.authority),
            (":path", method),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", user_agent),
            ("grpc-timeout", f"{round(timeout * 1000)}m"),
        ]
        self._connection.send_headers(_STREAM, headers)
        self._connection.send_data(_STREAM, struct.pack(">BI", 0, len(message)) + message, end_stream=True)

    def to_send(self) -> bytes:
        """The bytes that go out now."""
        return self._connection.data_to_send()

    def feed(self, data: bytes) -> None:
        """Take bytes that came.

        Raises:
            BadAnswer: They are no HTTP/2, or the server gave the call up.
        """
        if not self._heard and data.startswith(b"HTTP/"):
            raise BadAnswer("it is of HTTP/1.1")
        self._heard = True
        try:
            events = self._connection.receive_data(data)
        except h2.exceptions.H2Error as error:
            raise BadAnswer(f"it is no HTTP/2 ({error})") from error
        except UnicodeDecodeError as error:
            raise BadAnswer("its headers are no text") from error
        for event in events:
            match event:
                case (
                    h2.events.ResponseReceived(headers=headers) | h2.events.TrailersReceived(headers=headers)
                ):
                    self.headers = {
                        **self.headers,
                        **{str(name): str(value) for name, value in headers or ()},
                    }
                case h2.events.DataReceived(data=body, flow_controlled_length=length):
                    self._body += body or b""
                    if len(self._body) > _LARGEST:
                        raise BadAnswer(f"it is longer than {_LARGEST} bytes")
                    if length:
                        self._connection.acknowledge_received_data(length, _STREAM)
                case h2.events.StreamEnded():
                    self.done = True
                case h2.events.StreamReset(error_code=code):
                    raise BadAnswer(f"the server gave the call up (HTTP/2 error {code})")
                case h2.events.ConnectionTerminated(error_code=code) if code and not self.done:
                    raise BadAnswer(f"the server ended the connection (HTTP/2 error {code})")

    @property
    def http_status(self) -> int:
        """The HTTP status; gRPC's own answers have 200."""
        status = self.headers.get(":status", "")
        return int(status) if status.isdecimal() else 0

    @property
    def status(self) -> int | None:
        """gRPC's status, 0 for OK; None when the answer isn't gRPC's."""
        status = self.headers.get("grpc-status", "")
        return int(status) if status.isdecimal() else None

    @property
    def text(self) -> str:
        """What gRPC says of an error, else the body as text."""
        if "grpc-message" in self.headers:
            return unquote(self.headers["grpc-message"])
        return bytes(self._body[:500]).decode("utf-8", "replace").strip()

    def message(self) -> bytes:
        """The serialized answer.

        Raises:
            BadAnswer: It is no single, uncompressed message.
        """
        if len(self._body) < 5:
            raise BadAnswer("it holds no message")
        compressed, length = struct.unpack(">BI", self._body[:5])
        if compressed or length != len(self._body) - 5:
            raise BadAnswer("it is not one uncompressed message")
        return bytes(self._body[5:])
