"""The Kinesis client that puts the events of a chaos run."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from service.local.loopback import CREDENTIALS, REGION


def client(service: str, endpoint_url: str, *, timeout_s: float) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    session = boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )
    # No retries: a record put again because a response was lost would count twice, and rightly so.
    config = Config(retries={"total_max_attempts": 1}, read_timeout=timeout_s)
    return session.client(service, endpoint_url=endpoint_url, config=config)
