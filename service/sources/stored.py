"""A user's own sources as they are kept: one row each, with the text of a source file that holds it alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.registry import BUILTIN_NAMES

MAX_OWN = 100
"""Most sources of a user's own that are in force: each is asked for every event, and its name is a metric's label."""


class SourceRow(msgspec.Struct, frozen=True):
    """A source as stored.

    Attributes:
        name: Its name.
        text: A source file with this source alone.
        position: Its place in the file that it came from: sources are asked by position, then by name.
    """

    name: str
    text: str
    position: int = 0


class Faulty(msgspec.Struct, frozen=True):
    """A row that cannot be used. `kept` says whether an earlier version of it stays in force."""

    name: str
    why: str
    kept: bool


class OwnSources(msgspec.Struct, frozen=True):
    """The user's sources in force.

    Attributes:
        by_name: Row and compiled source, of the last version of each that could be used.
        sources: The same, in the order in which they are asked.
        faulty: Rows that cannot be used.
    """

    by_name: Mapping[str, tuple[SourceRow, Source]] = {}
    sources: tuple[Source, ...] = ()
    faulty: tuple[Faulty, ...] = ()

    def refreshed(self, rows: Iterable[SourceRow]) -> OwnSources:
        """Return the sources after reading all rows.

        A faulty one keeps its last good version; one that is gone is gone. A row that is as before is not compiled
        again.
        """
        by_name: dict[str, tuple[SourceRow, Source]] = {}
        faulty: list[Faulty] = []
        for row in sorted(rows, key=lambda row: (row.position, row.name)):
            before = self.by_name.get(row.name)
            if before is not None and before[0] == row:
                by_name[row.name] = before
                continue
            found = compiled(row) if len(by_name) < MAX_OWN else f"more than {MAX_OWN} sources; remove some"
            if isinstance(found, Source):
                by_name[row.name] = row, found
                continue
            faulty.append(Faulty(row.name, found, before is not None))
            if before is not None:
                by_name[row.name] = before
        return OwnSources(by_name, tuple(source for _, source in by_name.values()), tuple(faulty))


def compiled(row: SourceRow) -> Source | str:
    """Return the source in a row, or what is wrong with it."""
    loaded = load_sources(row.text, f"source {row.name}", BUILTIN_NAMES)
    if loaded.problems:
        return str(loaded.problems[0])
    if [spec.name for spec in loaded.specs] != [row.name]:
        return f"source {row.name}: its text does not hold exactly this source"
    return Source(loaded.specs[0])
