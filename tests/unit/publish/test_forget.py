from collections.abc import AsyncIterator, Sequence

from service.ingest.identity_store import IdentityStore
from service.publish.forget import CHUNK, forgotten
from service.scoring.fold import UserKey
from tests.fakes.aio import in_virtual_time
from tests.fakes.clock import ManualClock
from tests.fakes.identities import MemoryRows

WAIT_S = 10.0


class Directory(IdentityStore):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(MemoryRows())
        self.clock = clock
        self.at: dict[UserKey, float] = {}

    async def forget(self, keys: Sequence[UserKey]) -> None:
        assert 0 < len(keys) <= CHUNK
        self.at.update(dict.fromkeys(keys, self.clock.now))


@in_virtual_time
async def test_a_score_is_published_again_once_no_worker_uses_old_knowledge():
    clock = ManualClock()
    directory = Directory(clock)
    read = 0

    async def keys() -> AsyncIterator[UserKey]:
        nonlocal read
        for number in range(1050):
            read += 1
            yield UserKey(f"u{number}", "p")

    seen = []
    async for key in forgotten(keys(), directory, clock, wait_s=WAIT_S, per_s=30):
        assert clock.now >= directory.at[key] + WAIT_S
        assert read <= len(seen) + 30 * WAIT_S + 2 * CHUNK  # so much ahead, and no more
        seen.append(key.user_id)
        clock.now += 1 / 30
    assert seen == [f"u{number}" for number in range(1050)]
    assert clock.now < 1050 / 30 + 2 * WAIT_S


@in_virtual_time
async def test_few_scores_wait_as_long():
    clock = ManualClock()
    directory = Directory(clock)

    async def keys() -> AsyncIterator[UserKey]:
        yield UserKey("u", "p")

    assert [key.user_id async for key in forgotten(keys(), directory, clock, wait_s=WAIT_S, per_s=1e6)] == ["u"]
    assert clock.now == WAIT_S
