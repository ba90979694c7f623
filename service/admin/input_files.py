"""Detects files for `send` or `import` that are not lines of JSON in UTF-8. Pure.

Signatures: gzip RFC 1952 §2.3.1, zip APPNOTE 4.3.7, bzip2 `BZh`, xz file format 1.2.1 §2.1.1.1, Zstandard RFC 8878
§3.1.1; byte order marks as in the Unicode Standard §23.8.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

HEAD_BYTES = 64 * 1024
"""Bytes at the start of a file that are examined."""

_PACKED = {
    b"\x1f\x8b": ("gzip-compressed", "gzip -dc"),
    b"PK\x03\x04": ("a zip archive", "unzip -p"),
    b"BZh": ("bzip2-compressed", "bzip2 -dc"),
    b"\xfd7zXZ\x00": ("xz-compressed", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("Zstandard-compressed", "zstd -dc"),
}
_UTF16 = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"{\x00": "UTF-16LE", b"[\x00": "UTF-16LE"}
_UTF16_BE = (b"\x00{", b"\x00[")
BOM = b"\xef\xbb\xbf"


class Unusable(msgspec.Struct, frozen=True):
    """Why a command cannot use a file.

    Attributes:
        what: What the file is, after its name: `is gzip-compressed`.
        command: A shell command that writes the intended text to standard output; to be followed by a pipe.
    """

    what: str
    command: str


def unusable(head: bytes, name: str, *, arrays: bool = False) -> Unusable | None:
    """Return why a file is not lines of JSON in UTF-8; None if its start shows no reason.

    Lines that are not JSON are not a reason: they are sent unchanged, and workers set them aside.

    Args:
        head: Up to `HEAD_BYTES` from the start of the file.
        name: The file's name in a shell command.
        arrays: Whether a JSON array is accepted.
    """
    for signature, (what, command) in _PACKED.items():
        if head.startswith(signature):
            return Unusable(f"is {what}", f"{command} {name}")
    for signature, encoding in (*_UTF16.items(), *((each, "UTF-16BE") for each in _UTF16_BE)):
        if head.startswith(signature):
            return Unusable(f"is text in {encoding}, not UTF-8", f"iconv -f {encoding} -t UTF-8 {name}")
    if head.startswith(BOM):
        return Unusable("starts with a byte order mark, which JSON must not have", f"tail -c +4 {name}")
    return _structured(head, name, arrays=arrays)


def _structured(head: bytes, name: str, *, arrays: bool) -> Unusable | None:
    start = head.lstrip()
    line, rest = _first_line(start)
    if start.startswith(b"[") and not arrays and (_is_json(line, list) or _spans_lines(start, list) or line == b"["):
        return Unusable("is a JSON array, not one object per line", f"jq -c '.[]' {name}")
    if start.startswith(b"{") and rest and not _is_json(line, dict):
        unfinished = line.endswith((b"{", b"[", b",")) and len(head) >= HEAD_BYTES
        if line == b"{" or unfinished or _spans_lines(start, dict):
            return Unusable("is JSON spread over several lines, not one object per line", f"jq -c . {name}")
    return None


def _first_line(start: bytes) -> tuple[bytes, bytes]:
    line, _, rest = start.partition(b"\n")
    return line.strip(), rest.strip()


def _is_json(text: bytes, kind: type) -> bool:
    return _decoded(lambda: isinstance(msgspec.json.decode(text), kind))


def _spans_lines(start: bytes, kind: type) -> bool:
    """Return whether the text starts with a JSON value that ends on a later line."""
    text = start.decode(errors="replace")

    def look() -> bool:
        value, end = json.JSONDecoder().raw_decode(text)
        return isinstance(value, kind) and "\n" in text[:end]

    return _decoded(look)


def _decoded(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (ValueError, RecursionError):  # both decoders raise these, or subclasses, for malformed text
        return False
