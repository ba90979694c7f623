"""Files that are not lines of JSON in UTF-8 are named for what they are, with a command that makes lines of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admin.input_files import HEAD_BYTES, unusable

EVENT = {"event_type": "t", "client": {"client_id": "e"}, "list": [1, 2]}
LINES = b"".join(json.dumps(EVENT).encode() + b"\n" for _ in range(3))


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("events.jsonl", LINES)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "command"),
    [
        (gzip.compress(LINES), "gzip", "gzip -dc FILE"),
        (zipped(), "zip archive", "unzip -p FILE"),
        (bz2.compress(LINES), "bzip2", "bzip2 -dc FILE"),
        (lzma.compress(LINES), "xz", "xz -dc FILE"),
        (LINES.decode().encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE"),
        (LINES.decode().encode("utf-16-le"), "UTF-16LE", "iconv -f UTF-16LE -t UTF-8 FILE"),
        (LINES.decode().encode("utf-16-be"), "UTF-16BE", "iconv -f UTF-16BE -t UTF-8 FILE"),
        (b"\xef\xbb\xbf" + LINES, "byte order mark", "tail -c +4 FILE"),
        (json.dumps([EVENT, EVENT]).encode(), "JSON array", "jq -c '.[]' FILE"),
        (json.dumps([EVENT, EVENT], indent=2).encode(), "JSON array", "jq -c '.[]' FILE"),
        (b"[" + LINES.replace(b"}\n", b"},\n") + b"{}]", "JSON array", "jq -c '.[]' FILE"),
        (json.dumps(EVENT, indent=2).encode(), "several lines", "jq -c . FILE"),
        (b"\n" + json.dumps(EVENT, indent=2).encode() * 2, "several lines", "jq -c . FILE"),
        (json.dumps({"a": ["x" * 10] * HEAD_BYTES}, indent=2).encode()[:HEAD_BYTES], "several lines", "jq -c . FILE"),
    ],
)
def test_a_file_is_named_for_what_it_is(content: bytes, what: str, command: str):
    found = unusable(content[:HEAD_BYTES], "FILE")
    assert found is not None
    assert what in found.what
    assert found.command == command


@pytest.mark.parametrize(
    "content", [LINES, LINES[:-1], b"", b"\n\n", b"not json\n\n\xff\n", b"{broken\n{}\n", b"7\n[1]\n"]
)
def test_lines_are_taken_as_they_are(content: bytes):
    assert unusable(content, "FILE") is None


@given(st.binary(max_size=200))
def test_anything_can_be_looked_at(content: bytes):
    unusable(content, "FILE")
