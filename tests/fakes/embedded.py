"""Names for the fixtures of `tests/conftest.py` that give the embedded AWS to a test."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from service.aws.clients import AwsSettings
from service.local.emulator import REGION

Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
"""The fixture `run`: runs a coroutine on the loop that the shared clients live on."""

MakeTable: TypeAlias = Callable[[str], str]
"""The fixture `make_table`: makes a table of a kind, returns its name."""

FreshName: TypeAlias = Callable[[str], str]
"""The fixture `fresh_name`: makes a name that no other test uses."""

POLLED = {"Delay": 0.05, "MaxAttempts": 1200}
"""`WaiterConfig` of an emulator: looks often, and for a minute at least. With a short delay alone, botocore's number of
attempts (18 for a stream) is used up within a second, which a loaded machine may well take."""

PATIENT = AwsSettings(region=REGION, connect_timeout_s=60.0, read_timeout_s=60.0)
"""Of the clients of an emulator: an answer that comes late is waited for; asked again, a put would be made twice."""
