"""How many scores a second a sink takes, with a fake that takes 20 ms a call: `python -m tests.benchmarks.sinks`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from decimal import Decimal

from service.aws.clients import AwsSettings, clients
from service.config.load import Purpose, load
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import Sink
from service.local.customer_profiles_fake import CustomerProfilesFake, Domain
from service.local.eventbridge_fake import EventBridgeFake
from service.local.webhook_fake.server import WebhookFake
from service.observability.metrics import Metrics
from service.publish.outbox import Ticket
from service.publish.sender import Sender, SenderOptions
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.customer_profiles.objects import object_type
from service.sinks.port import Parts
from service.sinks.registry import SINKS
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.identities import MemoryRows

SCORES = 8000
LATENCY_S = 0.02
Fake = CustomerProfilesFake | EventBridgeFake | WebhookFake


def fakes() -> dict[str, Fake]:
    """Return a fake for each sink."""
    kind = object_type("EngagementScore", "EngagementScore", expiration_days=1, create=True)
    return {
        "customer-profiles": CustomerProfilesFake(
            {"crm": Domain(types={"EngagementScore": kind})}, latency_s=LATENCY_S
        ),
        "eventbridge": EventBridgeFake(latency_s=LATENCY_S),
        "webhook": WebhookFake("standard", latency_s=LATENCY_S),
    }


VARIABLES = {
    "customer-profiles": {
        "SCORING_CUSTOMER_PROFILES_DOMAIN": "crm",
        "SCORING_CUSTOMER_PROFILES_PER_S": "10000",
    },
    "eventbridge": {"SCORING_EVENTBRIDGE_PER_S": "10000"},
    "webhook": {"SCORING_WEBHOOK_PER_S": "10000"},
}


async def published(sink: Sink) -> tuple[float, float]:
    """Publish; return the seconds and the CPU seconds, the fake's included."""
    sender = Sender(
        sink, MemoryDeadLetters(), lambda *_: None, lambda _: True, SystemClock(), Metrics(), random.Random(1),
        SenderOptions(capacity=2 * SCORES),
    )  # fmt: skip
    sending, done = asyncio.create_task(sender.run()), asyncio.Event()
    ticket = Ticket("stream", "shard", done.set)
    changes = [ScoreChange(UserKey(f"user-{number}", "shop"), Decimal(number), 1, 1) for number in range(SCORES)]
    started, cpu = time.perf_counter(), time.process_time()
    await sender.offer(changes, ticket)
    ticket.offered()
    await done.wait()
    took = time.perf_counter() - started, time.process_time() - cpu
    sending.cancel()
    await asyncio.wait((sending,))
    return took


async def measure(name: str, fake: Fake) -> None:
    """Print a line for one sink."""
    async with fake:
        variables = VARIABLES[name] | fake.environment() | {"SCORING_SINKS": name, "AWS_REGION": "us-east-1"}
        os.environ.update({key: text for key, text in variables.items() if key.startswith("AWS_")})
        settings = load(variables, Purpose.TABLES)
        async with clients(AwsSettings(region="us-east-1")) as aws:
            directory = IdentityStore(MemoryRows())
            parts = Parts(aws.client, directory, SystemClock(), Metrics(), random.Random(1), aws.on_close, 15.0)
            seconds, cpu = await published(await SINKS[name].make(settings.options_of(name), parts))
    sys.stdout.write(f"{name:18} {SCORES / seconds:8,.0f} scores/s {cpu / SCORES * 1e6:6,.0f} us of CPU per score\n")


async def main() -> None:
    """Measure every sink that has a fake."""
    for name, fake in fakes().items():
        await measure(name, fake)


if __name__ == "__main__":
    asyncio.run(main())
