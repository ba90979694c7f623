"""Reading the records of a dry run."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from service.admin.dry_run import Summary, lines_of, records
from service.sources.decoding import MAX_RECORD_BYTES
from service.sources.registry import Registry

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_each_line_is_a_record_and_empty_lines_are_not(pack: Callable[[bytes], bytes]):
    data = pack(b'{"a":1}\r\n\n  \n{"b":2}')
    assert list(records(io.BytesIO(data))) == [b'{"a":1}', b'{"b":2}']


def test_an_empty_file_has_no_records():
    assert list(records(io.BytesIO(b""))) == []


def test_damaged_gzip_and_an_endless_line_are_faults_of_the_file():
    with pytest.raises(ValueError, match="damaged gzip"):
        list(records(io.BytesIO(gzip.compress(b"x\n" * 1000)[:-9])))
    with pytest.raises(ValueError, match="longer than"):
        list(records(io.BytesIO(b"x" * (MAX_RECORD_BYTES + 2))))


def test_an_anonymous_id_is_said_to_count_only_where_its_user_is_known():
    with (SAMPLES / "segment.jsonl").open("rb") as file:
        lines = list(lines_of(file, Registry(default_project="shop"), lambda _kind, _project: Decimal(1)))
    assert [bool(line.note) for line in lines] == [False, False, True, True]
    assert "nobody's where none is known" in lines[2].note


def test_a_file_comes_to_events_with_their_points_and_a_summary():
    registry = Registry(default_project="shop")
    summary = Summary()
    with (SAMPLES / "ses.jsonl").open("rb") as file:
        lines = list(lines_of(file, registry, lambda kind, _: Decimal(10) if kind == "_email.open" else None))
    for line in lines:
        summary.add(line)
    opens = [line for line in lines if line.row.event_type == "_email.open" and line.row.person]
    assert {line.points for line in opens} == {Decimal(10)}
    assert all("no definition" in line.note for line in lines if line.row.event_type == "_email.send")
    assert summary.counts["ses", "_email.open", "event"] == len(opens)
    assert summary.counts["ses", "_email.open", "ambiguous"] == 1
    assert summary.records == len(lines)
