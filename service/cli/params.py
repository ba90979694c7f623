"""Types of arguments and options."""

from __future__ import annotations

import click

from service.scoring.event import MAX_ID_BYTES, MAX_PROJECT_BYTES, id_fault


class Id(click.ParamType[str]):
    """A user id, a project id or a name: not empty, valid UTF-8, and within the limit of a table's key.

    Args:
        name: What it is called in messages.
        limit: Most bytes.
    """

    def __init__(self, name: str, limit: int = MAX_ID_BYTES) -> None:
        self.name = name
        self._limit = limit

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text.

        Raises:
            click.BadParameter: The text cannot be such an id.
        """
        if not value:
            self.fail("is empty", param, ctx)
        fault = id_fault("it", value, self._limit)
        if fault is not None:
            self.fail(fault.detail, param, ctx)
        return value


PROJECT = Id("project", MAX_PROJECT_BYTES)
