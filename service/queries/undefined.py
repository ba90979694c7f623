"""Queries of events that were ignored because their type has no definition."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from service.aws.clients import Clients
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.undefined import UndefinedTable
from service.aws.translation import AwsSetupError
from service.config.settings import Settings
from service.ingest.stores import Undefined
from service.runtime.errors import TransientError
from service.scoring.definitions import Definition
from service.scoring.rules.stored import RulesRow, StoredRulesError, decode_rules


async def undefined(aws: Clients, settings: Settings) -> Sequence[Undefined]:
    """Return the counts of all workers, the most frequent first, without types that a definition or rule names by now.

    Raises:
        AwsSetupError: A table or a permission is missing.
        TransientError: The tables cannot be read now.
    """
    counted = await UndefinedTable(aws.dynamodb, settings.identities_table).load()
    if not counted:
        return ()
    rows = await DefinitionTable(aws.dynamodb, settings.definitions_table).load()
    defined = {(row.project_id, row.event_type) for row in rows if isinstance(row, Definition)}
    for row in rows:
        if isinstance(row, RulesRow):
            with suppress(StoredRulesError):
                named = decode_rules(row.project_id, row.text).by_type
                defined |= {(row.project_id, event_type) for event_type in named}
    return [each for each in counted if (each.project_id, each.event_type) not in defined]


async def remark(aws: Clients, settings: Settings) -> str:
    """Return one sentence about such events for other commands; empty if there are none or they cannot be read."""
    try:
        found = await undefined(aws, settings)
    except (AwsSetupError, TransientError):
        return ""
    if not found:
        return ""
    events = sum(each.events for each in found)
    return (
        f"{events:,} events of {len(found)} types were ignored because no definition covers them: "
        "scoring definitions missing"
    )
