"""Faults of publishing that the simulation must find, put back one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest import mock

from service.publish import outbox, sender
from service.publish.pipeline import PipelineState
from service.publish.reconcile import Reconciler
from service.publish.republish import Republisher
from service.scoring.fold import UserKey
from tests.simulation.network import SINKS


@contextmanager
def unordered_publishing() -> Iterator[None]:
    """Whatever is read last is taken for the newest, of what waits and of what was told before."""
    original = outbox.Outbox.offer

    def offer(self: outbox.Outbox, change: Any, ticket: outbox.Ticket) -> outbox.Offered:  # noqa: ANN401 - a patch
        self._published.drop(change.key)
        return original(self, change, ticket)

    unequal = mock.patch.object(outbox, "supersedes", return_value=True)
    with unequal, mock.patch.object(outbox.Outbox, "offer", offer):
        yield


@contextmanager
def no_republishing() -> Iterator[None]:
    """No score is published again after a lease was lost or seized."""
    nothing = mock.patch.object(Republisher, "later", return_value=None)
    with nothing, mock.patch.object(Republisher, "watch", return_value=None):
        yield


def two_in_flight() -> AbstractContextManager[Any]:
    """A change does not wait for the one before it of the same user."""
    original = outbox.Outbox.offer

    def offer(self: outbox.Outbox, *args: Any) -> outbox.Offered:  # noqa: ANN401 - a patch
        flying, self._flying = self._flying, {}
        try:
            return original(self, *args)
        finally:
            self._flying = flying

    return mock.patch.object(outbox.Outbox, "offer", offer)


def no_late_republishing() -> AbstractContextManager[Any]:
    """A worker that comes back late does not look at what it may have overwritten."""
    return mock.patch.object(Republisher, "later", return_value=None)


def no_watch() -> AbstractContextManager[Any]:
    """A successor does not publish again what a dead worker's last calls may overwrite."""
    return mock.patch.object(Republisher, "watch", return_value=None)


def republished_too_soon() -> AbstractContextManager[Any]:
    """A successor does not wait until no call of the dead worker can take effect any more."""

    seen: dict[tuple[int, UserKey], None] = {}  # what is published again comes back here, without end

    async def watch(self: Republisher, keys: Sequence[UserKey], until: float) -> None:
        del until
        self.later([key for key in keys if (id(self), key) not in seen], 0.0)
        seen.update(dict.fromkeys((id(self), key) for key in keys))

    return mock.patch.object(Republisher, "watch", watch)


def lost_calls_forgotten() -> AbstractContextManager[Any]:
    """A call whose connection was lost counts as one that never was."""
    return mock.patch.object(outbox.Outbox, "uncertain", return_value={})


def one_sink_for_all() -> AbstractContextManager[Any]:
    """A change counts as published once the first sink has it."""
    original = sender.Sender.offer

    async def offer(self: sender.Sender, change: Any, ticket: outbox.Ticket) -> None:  # noqa: ANN401 - a patch
        first = self._sink.name == SINKS[0]
        await original(self, change, ticket if first else outbox.Ticket("", ticket.shard_id, lambda: None))

    return mock.patch.object(sender.Sender, "offer", offer)


def no_reconciliation() -> AbstractContextManager[Any]:
    """Changes that the score stream has lost are passed over without a word."""
    return mock.patch.object(Reconciler, "owe")


def reconciliation_done_too_early() -> AbstractContextManager[Any]:
    """A reconciliation counts as complete as soon as it begins: a leader that dies in it leaves the rest undone."""
    original = Reconciler._reconcile

    async def reconcile(self: Any, state: PipelineState) -> None:  # noqa: ANN401 - a patch
        await self._update(partial(PipelineState.completed, running=state.owed))
        await original(self, state)

    return mock.patch.object(Reconciler, "_reconcile", reconcile)


def loss_kept_in_memory() -> AbstractContextManager[Any]:
    """That changes were lost is known only to the worker that found it (as it once was)."""

    async def owe(self: Any, why: str) -> None:  # noqa: ANN401 - a patch
        del why
        self._mine = True

    original = Reconciler._look

    async def look(self: Any) -> None:  # noqa: ANN401 - a patch
        await original(self)
        if getattr(self, "_mine", False):
            leading, self._leading = self._leading, lambda: True
            await self._reconcile(PipelineState())
            self._leading, self._mine = leading, False

    @contextmanager
    def both() -> Iterator[None]:
        with mock.patch.object(Reconciler, "owe", owe), mock.patch.object(Reconciler, "_look", look):
            yield

    return both()
