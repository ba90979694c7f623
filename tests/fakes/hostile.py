"""Records that no honest sender sends: a corpus written by hand, a seeded generator, and a Hypothesis strategy."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

MIB = 1024 * 1024

TYPES = (
    "_email.open",
    "_email.click",
    "_email.complaint",
    "_campaign.send",
    "_SMS.SUCCESS",
    "_session.start",
    "unknown",
)
NAMES = (
    "ann", "", " ", "\x00", "\n", "a" * 2000, "a" * 2001, "a" * 2049, "é" * 1000, "é" * 1025, "💥" * 513,
    "\u202eevil", "A\u030a", "\ufeff", "\ufffe", "Ω≈ç√", "../..", "' OR 1=1 --", "${jndi:ldap://x}", "\u2028",
    "x" * 100_000,
)  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), 1e308, [], {}, [[]], [1, "a"], {"a": {}}, "", "null", "{", "[1]",
)  # fmt: skip
PATHS = (
    ("event_type",), ("arrival_timestamp",), ("event_timestamp",), ("application",), ("application", "app_id"),
    ("client",), ("client", "client_id"), ("client_context",), ("client_context", "custom"),
    ("client_context", "custom", "endpoint"), ("attributes",), ("attributes", "campaign_id"), ("endpoint",),
    ("endpoint", "User"), ("endpoint", "User", "UserId"), ("device",), ("awsAccountId",),
    ("app_id",), ("application_key",), ("attributes", "customer_context"), ("endpoint", "user"),
    ("endpoint", "EndpointStatus"), ("endpoint", "User", "userId"),
)  # fmt: skip

Json = dict[str, Any]


def event(
    event_type: str = "_email.open", *, user: str | None = "ann", endpoint: str = "e1", project: str = "p1"
) -> Json:
    """An event as Pinpoint sends it, in short."""
    made: Json = {
        "event_type": event_type,
        "arrival_timestamp": 1_700_000_000_000,
        "application": {"app_id": project},
        "client": {"client_id": endpoint},
        "attributes": {},
    }
    if user is not None:
        made["endpoint"] = {"User": {"UserId": user}}
    return made


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def stored_values() -> list[dict[str, Any]]:
    """Attribute values that DynamoDB keeps and no writer of scores writes; 1E+125 is the largest of its numbers."""
    return [
        *({"N": number} for number in ("-1", "1.5", "3.0", "1e125", "9" * 38, "18446744073709551616", "-1e-130", "0")),
        {"S": "12"}, {"S": ""}, {"B": b"\x00"}, {"BOOL": True}, {"NULL": True}, {"M": {}}, {"L": []},
        {"SS": ["a"]}, {"NS": ["1"]}, {"BS": [b"1"]},
        {"M": {"tag-0": {"B": b"short"}}}, {"M": {"tag-0": {"S": "1"}}}, {"M": {"tag-0": {"B": bytes(24)}}},
        {"M": {"tag-0": {"B": b"\xff" * 24}}}, {"M": {"tag-0": {"M": {}}}},
    ]  # fmt: skip


def _nested(depth: int, left: str = "[", right: str = "]") -> bytes:
    return b'{"event_type": "_email.open", "x": ' + (left * depth + right * depth).encode() + b"}"


def _padded(size: int, padding: bytes) -> bytes:
    head, tail = json.dumps(event())[:-1].encode() + b', "padding": "', b'"}'
    return head + (padding * (size // len(padding) + 1))[: size - len(head) - len(tail)] + tail


def _snapshot(endpoint: str) -> bytes:
    return json.dumps({"event_type": "_campaign.send", "client_context": {"custom": {"endpoint": endpoint}}}).encode()


CORPUS: dict[str, bytes] = {
    "nothing": b"",
    "a byte": b"\x00",
    "spaces": b" " * 5000,
    "newlines": b"\n\n\n",
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(event()).encode(),
    "utf-16": json.dumps(event()).encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "a KPL aggregate": b"\xf3\x89\x9a\xc2\x1a\x07\x1a\x05hello" + bytes(16),
    "base64": base64.b64encode(json.dumps(event()).encode()),
    "a Firehose request": b'{"requestId": "r", "records": [{"data": "e30="}]}',
    "the event of a Lambda function": b'{"Records": [{"kinesis": {"data": "e30="}}]}',
    "no project": b'{"event_type": "_email.open", "user_id": "ann", "project_id": "p1"}',
    "no person": b'{"event_type": "_session.start", "application": {"app_id": "p1"}, "user_id": "ann"}',
    "numbers for ids": b'{"event_type": "_email.open", "application": {"app_id": 1}, "client": {"client_id": 2},'
    b' "endpoint": {"User": {"UserId": 3}}}',
    "a snapshot without a user": json.dumps(event(user=None) | {"endpoint": {"User": {}}}).encode(),
    "a million keys in the endpoint": b'{"event_type": "_email.open", "endpoint": {' + b'"k":1,' * 200_000 + b'"k":1}}',
    "null": b"null",
    "a number": b"12",
    "a string": b'"_email.open"',
    "an array": b"[]",
    "an array of events": json.dumps([event(), event()]).encode(),
    "an empty object": b"{}",
    "two objects": json.dumps(event()).encode() * 2,
    "two lines": json.dumps(event()).encode() + b"\n" + json.dumps(event()).encode(),
    "trailing text": json.dumps(event()).encode() + b" and so on",
    "trailing comma": b'{"event_type": "_email.open",}',
    "comments": b'{"event_type": "_email.open" /* yes */}',
    "single quotes": b"{'event_type': '_email.open'}",
    "NaN": b'{"event_type": "_email.open", "arrival_timestamp": NaN}',
    "infinity": b'{"event_type": "_email.open", "arrival_timestamp": -Infinity}',
    "a number too large": b'{"event_type": "_email.open", "arrival_timestamp": 1e999}',
    "a number of many digits": b'{"event_type": "_email.open", "arrival_timestamp": ' + b"9" * 5000 + b"}",
    "a fraction of many digits": b'{"event_type": "_email.open", "arrival_timestamp": 0.' + b"9" * 5000 + b"}",
    "a time to come": b'{"event_type": "_email.open", "arrival_timestamp": 9007199254740991}',
    "a time before all": b'{"event_type": "_email.open", "arrival_timestamp": -1}',
    "duplicate keys": b'{"event_type": "_email.open", "event_type": 7, "event_type": "_email.click"}',
    "duplicate clients": b'{"event_type": "_email.open", "client": {"client_id": "a"}, "client": {"client_id": "b"}}',
    "many duplicate keys": b'{"event_type": "_email.open"' + b', "event_type": "_email.open"' * 5000 + b"}",
    "many keys": json.dumps({f"key{n}": n for n in range(5000)} | event()).encode(),
    "nested as deep as allowed": _nested(63),
    "nested deeper": _nested(65),
    "nested deep": _nested(100_000),
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "only opening brackets": b"[" * 200_000,
    "only closing brackets": b"]" * 200_000,
    "brackets in a string": json.dumps(event() | {"x": "[{" * 5000}).encode(),
    "brackets and quotes without end": b'{"event_type":"x","a":' + b"[" * 70 + b'"' + b'a\\"' * 60_000,
    "backslashes without end": b'{"event_type":"x","a":' + b"[" * 70 + b'"' + b"\\" * 200_001,
    "escaped quotes": b'{"event_type":"x","a":"' + b'\\"' * 60_000 + b'","b":' + b"[" * 70 + b"]" * 70 + b"}",
    "invalid UTF-8 in a value": b'{"event_type": "_email.open", "x": "\xff\xfe"}',
    "invalid UTF-8 in a key": b'{"event_type": "_email.open", "\xc3": 1}',
    "invalid UTF-8 in an id": b'{"event_type": "_email.open", "client": {"client_id": "\xed\xa0\x80"}}',
    "overlong UTF-8": b'{"event_type": "_email.open", "x": "\xc0\xaf"}',
    "a lone surrogate": b'{"event_type": "_email.open", "client": {"client_id": "\\ud800"}}',
    "a lone surrogate in the snapshot": b'{"event_type": "_campaign.send", "client_context": {"custom": {"endpoint": '
    b'"{\\"User\\": {\\"UserId\\": \\"\\\\ud800\\"}}"}}}',
    "NUL in an id": json.dumps(event(user="\x00")).encode(),
    "control characters": b'{"event_type": "_email\x01.open"}',
    "an empty user": json.dumps(event(user="")).encode(),
    "an empty endpoint": json.dumps(event(user=None, endpoint="")).encode(),
    "an empty project": json.dumps(event(project="")).encode(),
    "a project too long": json.dumps(event(project="p" * 1025)).encode(),
    "a user of 2,000 bytes": json.dumps(event(user="u" * 2000)).encode(),
    "a user of 2,001 bytes": json.dumps(event(user="u" * 2001)).encode(),
    "a user of 2,049 bytes": json.dumps(event(user="u" * 2049)).encode(),
    "a user of 2,000 bytes in emoji": json.dumps(event(user="💥" * 500), ensure_ascii=False).encode(),
    "an endpoint too long": json.dumps(event(endpoint="e" * 3000)).encode(),
    "an event type too long": json.dumps(event("t" * 100_000)).encode(),
    "an event type of another kind": b'{"event_type": ["_email.open"]}',
    "an event type of spaces": json.dumps(event("   ")).encode(),
    "a snapshot that is no JSON": _snapshot("{"),
    "a snapshot nested deep": _snapshot("[" * 5000),
    "a snapshot in a snapshot": _snapshot(json.dumps(json.dumps({"User": {"UserId": "ann"}}))),
    "strange keys": json.dumps(event() | dict.fromkeys(NAMES, 1), ensure_ascii=False).encode(),
    "a prototype": b'{"__proto__": {"event_type": "_email.open"}, "constructor": 1}',
    "the probe": b'{"event_type": "_test.event_stream"}',
    "100 kB of padding": _padded(100_000, b"x"),
    "100 kB of escapes": _padded(100_000, b"\\n"),
    "100 kB of é": _padded(100_001, "é".encode()),
}  # fmt: skip
"""By what is wrong with them; some are events all the same."""


PLAIN = b'{"event_type":"x","application":{"app_id":"p"}'


def large(size: int) -> dict[str, bytes]:
    """Records of about `size` bytes, each hard on one thing: a string, escapes, brackets, keys, an id, no JSON."""
    half = size // 2 - 100
    return {
        "padding": _padded(size, b"x"),
        "escapes": b'{"event_type":"x","a":"' + b'\\"' * half + b'","b":' + b"[" * 60 + b"]" * 60 + b',"c":[[],[],[]]}',
        "endless string": b'{"event_type":"x","a":' + b"[" * 70 + b'"' + b'a\\"' * (size // 3 - 100),
        "depth": b'{"event_type":"x","a":' + b"[" * half + b"]" * half + b"}",
        "empty arrays": b'{"event_type":"x","a":[' + b"[]," * (size // 3 - 100) + b"1]}",
        "keys": b'{"event_type":"x"' + b',"event_type":"y"' * (size // 17 - 10) + b"}",
        "digits": b'{"event_type":"x","arrival_timestamp":' + b"9" * (size - 100) + b"}",
        "id": b'{"event_type":"x","client":{"client_id":"' + b"a" * (size - 100) + b'"}}',
        "time": b'{"event_type":"x","arrival_timestamp":"' + b"9" * (size - 100) + b'"}',
        "snapshot": PLAIN + b',"endpoint":{"User":{}' + b',"k":[1]' * (half // 4) + b"}}",
        "quoted": PLAIN + b',"attributes":"{' + b'\\"k\\":1,' * (half // 5) + b'}"}',
        "noise": random.Random(size).randbytes(size),
        "zeros": bytes(size),
    }  # fmt: skip


def _put(target: Json, path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        if not isinstance(inner, dict):
            inner = target[name] = {}
        target = inner
    target[path[-1]] = value


def _mutant(rng: random.Random) -> bytes:
    made = event(rng.choice(TYPES), user=rng.choice(("ann", "bob", None)), endpoint=f"e{rng.randrange(50)}")
    for _ in range(rng.randrange(3)):
        _put(made, rng.choice(PATHS), deepcopy(rng.choice(WRONG)) if rng.random() < 0.5 else rng.choice(NAMES[:-1]))
    if rng.random() < 0.2:
        made["client_context"] = {"custom": {"endpoint": json.dumps({"User": {"UserId": rng.choice(NAMES[:8])}})}}
    data = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode()
    match rng.randrange(8):
        case 0:
            return data[: rng.randrange(len(data))]
        case 1:
            at = rng.randrange(len(data))
            return data[:at] + rng.randbytes(rng.randrange(1, 4)) + data[at + 1 :]
        case 2:
            at = rng.randrange(len(data))
            return data[:at] + data[rng.randrange(len(data)) :]
        case 3:
            return data[:-1] + b', "event_type": ' + json.dumps(rng.choice(WRONG)).encode() + b"}"
        case 4:
            depth = rng.randrange(130)
            return data[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"
        case _:
            return data


def records(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield `count` records: mutated events, the corpus among them, and noise; the same for the same seed."""
    rng = random.Random(seed)
    corpus = [data for data in CORPUS.values() if len(data) < 10_000]
    for _ in range(count):
        dice = rng.random()
        if dice < 0.04:
            yield rng.choice(corpus)
        elif dice < 0.08:
            yield rng.randbytes(rng.randrange(200))
        else:
            yield _mutant(rng)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NAMES[:8]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def hostile_records(draw: st.DrawFn) -> bytes:
    """Any bytes, or an event with anything at any of the places that are read, perhaps cut or with bytes changed."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300) | st.sampled_from(sorted(CORPUS.values(), key=len)[:40]))
    made = event(draw(st.sampled_from(TYPES)))
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=4)):
        _put(made, path, draw(_ANY))
    data = bytearray(json.dumps(made, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data[at] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
