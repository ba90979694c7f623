"""The sources in force."""

from __future__ import annotations

from service.sources.registry import Registry


class CurrentSources:
    """Answers which sources read the records.

    Args:
        default_project: The project of events that name none; empty: such events are dead letters.
    """

    def __init__(self, *, default_project: str = "") -> None:
        self._registry = Registry(default_project=default_project)

    @property
    def registry(self) -> Registry:
        """The sources in force now: immutable, so a batch reads it once."""
        return self._registry
