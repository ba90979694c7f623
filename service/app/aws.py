"""AWS settings of a worker. `scoring doctor` uses the same, so that its verdict applies to the worker."""

from __future__ import annotations

from service.aws.clients import AwsSettings
from service.config.settings import Settings


def worker_calls(settings: Settings) -> AwsSettings:
    """Return the settings of a worker's clients."""
    return AwsSettings(region=settings.aws_region, fast_calls=settings.fast_calls)
