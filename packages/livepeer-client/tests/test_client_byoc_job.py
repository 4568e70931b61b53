"""The header of a BYOC job."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from livepeer.client import ConfigurationError
from livepeer.client.routes._job import job_header


def read(header: dict[str, str]) -> Any:
    assert list(header) == ["Livepeer"]
    return json.loads(base64.b64decode(header["Livepeer"], validate=True))


def test_what_a_job_says() -> None:
    job = read(job_header("echo", job_id="j-1", timeout_seconds=30))
    assert job == {
        "id": "j-1",
        "request": "{}",
        "parameters": "{}",
        "capability": "echo",
        "timeout_seconds": 30,
    }


def test_request_and_parameters_are_texts_of_json() -> None:
    header = job_header(
        "é",
        job_id="j",
        request={"stream_id": "s"},
        parameters={"enable_data_output": True},
        timeout_seconds=1,
    )
    job = read(header)
    assert json.loads(job["request"]) == {"stream_id": "s"}
    assert json.loads(job["parameters"]) == {"enable_data_output": True}
    assert job["capability"] == "é"


@pytest.mark.parametrize("seconds", [0, -1, 1.5, True])
def test_seconds_are_whole_and_over_nothing(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="whole seconds"):
        job_header("echo", job_id="j", timeout_seconds=seconds)
