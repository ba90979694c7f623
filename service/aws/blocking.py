"""boto3 clients for playing events to an emulator and for checking the result. They block.

The demo, generated traffic and chaos runs check a worker from outside, in threads of their own. They share no client
code with it, so that a fault of the worker's clients cannot hide. No other command uses these clients.
"""

from __future__ import annotations

from collections.abc import Mapping

import boto3
from botocore.config import Config

from service.aws.clients import AwsClient


def client_in(service: str, environment: Mapping[str, str], *, attempts: int = 1) -> AwsClient:
    """Return a client for the given environment, without retries by default.

    A retried put whose first answer was lost is a second record, and counts.

    Args:
        service: botocore's name of the service.
        environment: `AWS_*` variables that name endpoint, credentials and region; boto3 finds credentials that are
            not among them, such as a profile's.
        attempts: Requests per call.
    """
    session = boto3.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=environment.get("AWS_REGION"),
    )
    config = Config(retries={"total_max_attempts": attempts}, max_pool_connections=4)
    url = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}") or environment["AWS_ENDPOINT_URL"]
    return session.client(service, endpoint_url=url, config=config)
