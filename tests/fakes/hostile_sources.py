"""Events of each source that no honest sender sends: many of them, cheaply, and the same for the same seed."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.fakes.frames import kpl, log_subscription, notification
from tests.fakes.hostile import CORPUS, NAMES, WRONG

SAMPLES = Path(__file__).parents[1] / "samples"
POOL = 3_000

Json = dict[str, Any] | list[Any]


def samples(name: str) -> list[bytes]:
    return [line for line in (SAMPLES / f"{name}.jsonl").read_bytes().split(b"\n") if line]


WHATSAPP = [
    json.dumps(
        {
            "source": "aws.social-messaging",
            "detail-type": f"WhatsApp Message {kind}",
            "time": "2025-10-03T04:34:24Z",
            "detail": {"messageId": "m", "eventTimestamp": "1759466063", "context": {"user_id": "u"}},
        }
    ).encode()
    for kind in ("Sent", "Delivered", "Read", "Failed", "Handover Failed")
]


def _places(tree: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a decoded event."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _changed(tree: Json, rng: random.Random) -> Json:
    """The event with something else at one of its places, or without it, or with it many times."""
    tree = deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return tree
    *parents, last = rng.choice(places)
    inner: Any = tree
    for key in parents:
        inner = inner[key]
    dice = rng.random()
    if dice < 0.15:
        del inner[last]
    elif dice < 0.25:
        inner[last] = [inner[last]] * rng.randrange(4)
    elif dice < 0.6:
        inner[last] = deepcopy(rng.choice(WRONG))
    else:
        inner[last] = rng.choice(NAMES[:-1])
    return tree


def _wrapped(data: bytes, rng: random.Random) -> bytes:
    match rng.randrange(6):
        case 0:
            return gzip.compress(data, 1)
        case 1:
            return kpl([data, rng.randbytes(rng.randrange(5)), data])
        case 2:
            return log_subscription([data.decode(errors="replace")] * rng.randrange(3))
        case 3:
            return notification(data.decode(errors="replace"))
        case 4:
            return b"[" + data + b"," + data + b"]"
        case _:
            return data + b"\n" + data


def _pool(events: list[bytes], rng: random.Random) -> list[bytes]:
    made: list[bytes] = []
    while len(made) < POOL:
        tree = json.loads(rng.choice(events))
        for _ in range(rng.randrange(4)):
            tree = _changed(tree, rng)
        data = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
        made.append(_wrapped(data, rng) if rng.random() < 0.1 else data)
    return made + [data for data in CORPUS.values() if len(data) < 2_000]


def hostile(events: list[bytes], count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield `count` records: changed events, wrapped and bare, cut, spliced, with bytes replaced, and noise."""
    rng = random.Random(seed)
    pool = _pool(events, rng)
    pick = rng.random
    size = len(pool)
    for number in range(count):
        data = pool[int(pick() * size)]
        at = int(pick() * len(data))
        match number & 15:
            case 0:
                yield data[:at]
            case 1:
                yield data[:at] + b"\xff{" + data[at + 1 :]
            case 2:
                other = pool[int(pick() * size)]
                yield data[:at] + other[int(pick() * len(other)) :]
            case 3:
                yield data[:at] + data[at + 7 :]
            case _:
                yield data
