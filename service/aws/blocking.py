"""boto3's clients: for `setup` and `doctor`, and for the tools that play events to an emulator. They block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ProfileNotFound
from botocore.session import Session

from service.aws.clients import AwsClient, AwsSettings, refuse_unreadable


def client(service: str, settings: AwsSettings) -> AwsClient:
    """Return a client; endpoints and credentials as in `clients.py`. Its errors name the table or stream they mean."""
    made = boto3.session.Session().client(
        service, region_name=settings.region or None, config=Config(**settings.options())
    )
    made.meta.events.register("before-parameter-build", _note_resource)
    made.meta.events.register("after-call", _name_resource)
    made.meta.events.register("before-parse", refuse_unreadable)
    return made


def client_in(service: str, environment: Mapping[str, str]) -> AwsClient:
    """Return a client as an environment other than this process's says, without retries.

    A record that is put again because an answer was lost counts twice, as it must.

    Args:
        service: botocore's name of the service.
        environment: `AWS_*` variables that name endpoint, credentials and region.
    """
    session = boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=4)
    return session.client(service, endpoint_url=environment[f"AWS_ENDPOINT_URL_{service.upper()}"], config=config)


def profile_region() -> str | None:
    """Return the region of the profile in use; None where it has none, or there is no such profile."""
    try:
        return Session().get_config_variable("region") or None
    except ProfileNotFound:
        return None  # said when the first client is made


def _note_resource(params: Mapping[str, Any], context: dict[str, Any], **_kwargs: object) -> None:
    for name in ("TableName", "StreamName", "StreamARN"):
        if name in params:
            kind = "table" if name == "TableName" else "stream"
            context["scoring_resource"] = f"{kind} {params[name]}"


def _name_resource(parsed: dict[str, Any], context: Mapping[str, Any], **_kwargs: object) -> None:
    """Put the table or stream into the error, which by itself does not say which one it means."""
    if "Error" in parsed and "scoring_resource" in context:
        parsed["Error"]["Resource"] = context["scoring_resource"]
