"""The dead-letter table in memory: `DeadLetters`."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from service.ingest.stores import DeadLetter


class MemoryDeadLetters:
    """`DeadLetters` in a dict by id; `faults` are raised one by one by the next calls, which then do nothing."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self.faults: deque[Exception] = deque()
        self.puts = 0

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        self.puts += 1
        if self.faults:
            raise self.faults.popleft()
        for letter in letters:
            self.letters.setdefault(letter.letter_id, letter)

    async def between(self, origin: str, first: str, last: str) -> Collection[str]:
        if self.faults:
            raise self.faults.popleft()
        return [letter_id for letter_id in self.letters if f"{origin}.{first}" <= letter_id <= f"{origin}.{last}"]
