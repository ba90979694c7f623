"""`scoring rules plan --impact`: what new rules do to the scores there are."""

from __future__ import annotations

import time

from service.aws.clients import clients
from service.aws.tables.scores import ScoreTable
from service.cli.context import aws_settings, run_async
from service.cli.output import note, print_json, print_table, write
from service.config.settings import Settings
from service.observability.metrics import Metrics, score_bands
from service.queries.impact import Impact, impact_of
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.model import RuleSet


def show_impact(settings: Settings, before: RuleSet | None, after: RuleSet, *, as_json: bool) -> None:
    """Scan the scores of the rules' project, and show what changes for its people today."""

    async def read() -> Impact:
        today = time.time_ns() // 1_000_000 // DAY_MS
        async with clients(aws_settings(settings)) as aws:
            table = ScoreTable(aws.dynamodb, settings.scores_table, Metrics())
            return await impact_of(table, after.project_id, before, after, today)

    found = run_async(read())
    tiers = sorted(found.tiers.items())
    if as_json:
        print_json(
            {
                "people": found.people,
                "changed": found.changed,
                "largest_rise": found.up,
                "largest_fall": found.down,
                "tiers": [{"before": old, "after": new, "people": count} for (old, new), count in tiers],
                "bands_before": found.bands_before,
                "bands_after": found.bands_after,
                "unusable": found.unusable,
            }
        )
        return
    print_table(
        ("Score", "People now", "People then"),
        [(band, found.bands_before[band], found.bands_after[band]) for band in score_bands()],
        "",
        right=("People now", "People then"),
    )
    for (old, new), count in tiers:
        write(f"tier {old or 'none'} -> {new or 'none'}: {count:,} people")
    note(
        f"{found.changed:,} of {found.people:,} scores change: at most {found.up:f} up and {-found.down:f} down. "
        "It is written with each person's next event, and by the daily sweep"
    )
    if found.unusable:
        note(f"{found.unusable:,} items have a state that cannot be read")
