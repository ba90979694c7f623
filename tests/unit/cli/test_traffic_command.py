"""Made-up traffic goes to emulators only."""

from __future__ import annotations

import pytest

from service.cli.failures import Failure
from service.cli.traffic import _emulator


@pytest.mark.parametrize(
    "url", ["https://kinesis.us-east-1.amazonaws.com", "https://vpce-1-kinesis.eu-west-1.vpce.amazonaws.com:443", ""]
)
def test_aws_is_no_emulator(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", url)
    with pytest.raises(Failure, match="emulators only"):
        _emulator("KINESIS")


def test_an_emulator_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_KINESIS", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:4566")
    assert _emulator("KINESIS") == "http://localhost:4566"
