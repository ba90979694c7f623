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

    def reading(self, detailed: frozenset[str]) -> Registry:
        """Return the sources in force now, reading the payload of events of some types.

        Args:
            detailed: Types of which rules read the payload.
        """
        if self._registry.detailed != detailed:
            self._registry = self._registry.with_details(detailed)
        return self._registry

    @property
    def registry(self) -> Registry:
        """The sources in force now: immutable, so a batch reads it once."""
        return self._registry
