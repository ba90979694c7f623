"""The pipeline's row in memory: `PipelineStore` for many workers, each through its own gate."""

from __future__ import annotations

from service.publish.pipeline import PipelineState
from tests.fakes.aio import Gate


class PipelineRow:
    """The row.

    Attributes:
        state: As stored; None where there is none.
        history: Every state written, in order.
    """

    def __init__(self) -> None:
        self.state: PipelineState | None = None
        self.history: list[PipelineState] = []

    def replace(self, expected: PipelineState | None, new: PipelineState) -> bool:
        found = None if self.state is None else self.state.counter
        if found != (None if expected is None else expected.counter):
            return False
        self.state = new
        self.history.append(new)
        return True


class FakePipeline:
    """One worker's access to the row."""

    def __init__(self, row: PipelineRow, gate: Gate | None = None) -> None:
        self.row = row
        self._gate = gate or Gate()

    async def load(self) -> PipelineState | None:
        return await self._gate.call(lambda: self.row.state)

    async def replace(self, expected: PipelineState | None, new: PipelineState) -> bool:
        return await self._gate.call(lambda: self.row.replace(expected, new))
