"""What a sink brings: one `SinkType`, listed in `registry.py`. Nothing outside its folder names the sink.

Light to import: settings and commands read these declarations. What calls a service is imported where it is made.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from service.runtime.clock import Clock
from service.sinks.setup import Wanted
from service.sinks.trials import Finding, Rate, Trial

if TYPE_CHECKING:
    from service.aws.clients import AwsClient
    from service.ingest.stores import EndpointDirectory, EndpointLookup, Sink
    from service.observability.metrics import Metrics


class MakeClient(Protocol):
    """Makes clients of AWS services; they are closed with the worker's other clients."""

    def __call__(self, service: str, *, attempts: int | None = None) -> Awaitable[AwsClient]:
        """Return a client.

        Args:
            service: botocore's name of the service.
            attempts: Requests per call, the first included; None: the usual number. 1 for a sink: its sender retries.
        """
        ...


def whole() -> float:
    """Return the share of a process that shares with nobody."""
    return 1.0


class Parts(msgspec.Struct, frozen=True):
    """What a sink is made from, beside its options.

    Attributes:
        client: Makes clients.
        directory: Remembers where users' scores go.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        on_close: Registers what is to be awaited when the worker's clients are closed.
        request_timeout_s: Longest time of a request, in seconds: no request may take effect later than that.
        share: Returns this worker's part of the configured rates, from 0 to 1: they are those of all workers together.
    """

    client: MakeClient
    directory: EndpointDirectory
    clock: Clock
    metrics: Metrics
    rng: random.Random
    on_close: Callable[[Callable[[], Awaitable[None]]], object]
    request_timeout_s: float
    share: Callable[[], float] = whole


class Fault(msgspec.Struct, frozen=True):
    """Something wrong with a sink's options: the variable, what is wrong with it, and what to do."""

    variable: str
    fault: str
    remedy: str


class NoOptions(msgspec.Struct, frozen=True):
    """The options of a sink that has none."""


def _none(*_: object) -> Sequence[Any]:
    return ()


class SinkType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of sink.

    Attributes:
        name: Its name in SCORING_SINKS, and a metric label.
        options: A struct whose fields are `Annotated` with `About`; the field `webhook_url` is read from
            SCORING_WEBHOOK_URL.
        make: Makes the sink from its options.
        services: botocore's names of the AWS services that it calls.
        actions: The IAM actions that it needs.
        check: Returns what is wrong with its options, where the sink is in use.
        trials: Returns the calls that `scoring doctor` tries, by options and projects. In a group, the first call finds
            out whether there is such a resource; where there is none, the rest is skipped.
        setup: Returns what `scoring setup` makes where it is missing, by options and projects.
        examine: Returns what `scoring doctor` says without a call, by options and projects. May read files.
        per_project: Whether the trials need a project.
        rates: Returns the configured rates that an account's quota limits.
        uses_directory: Whether it remembers in the identity table where users' scores go.
    """

    name: str
    make: Callable[[Any, Parts], Awaitable[Sink]]
    options: type[msgspec.Struct] = NoOptions
    services: tuple[str, ...] = ()
    actions: frozenset[str] = frozenset()
    check: Callable[[Any], Sequence[Fault]] = _none
    trials: Callable[[Any, Sequence[str]], Sequence[Sequence[Trial]]] = _none
    setup: Callable[[Any, Sequence[str]], Sequence[Wanted]] = _none
    examine: Callable[[Any, Sequence[str]], Sequence[Finding]] = _none
    per_project: bool = False
    rates: Callable[[Any], Sequence[Rate]] = _none
    uses_directory: bool = False


class LookupType(msgspec.Struct, frozen=True, kw_only=True):
    """A service that can be asked which user an endpoint belongs to.

    Attributes:
        title: Its name, for people.
        sink: The sink whose use switches it on, unless the configuration says otherwise.
        make: Makes it, from the calls per second.
        services: See `SinkType`.
        actions: See `SinkType`.
        trials: See `SinkType`; by projects.
        rates: See `SinkType`; by the configured rate.
    """

    title: str
    sink: str
    make: Callable[[float, Parts], Awaitable[EndpointLookup]]
    services: tuple[str, ...]
    actions: frozenset[str]
    trials: Callable[[Sequence[str]], Sequence[Sequence[Trial]]]
    rates: Callable[[float], Sequence[Rate]]
