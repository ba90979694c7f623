"""How a request of a webhook looks: a template file, read and filled in. Pure but for reading the file.

A text that begins with `$` is a placeholder, also as a key, and stands for the whole value:

| placeholder | value |
|---|---|
| `$items` | the list of filled-in `item`s; once, in `body` |
| `$now` | when the request is made, ISO 8601 |
| `$id` | hash of project, user and revision: the same for every attempt |
| `$user`, `$project` | texts |
| `$score` | a number, to the last digit |
| `$score_text` | the same as a text |
| `$revision` | a whole number that grows with every change of the score |
| `$updated` | arrival of the newest event in the score, ISO 8601; null where that is not known |
| `$tier` | a text; null: in none |
| `$attribute` | SCORING_WEBHOOK_ATTRIBUTE, `{project}` filled in |
| `$index` | place in the batch, from "0" on, as a text |

Values are put in place as values, never into text, so no user id can change a request's shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from service.ingest.stores import Ordering
from service.runtime.text import iso
from service.scoring.change import ScoreChange, format_score
from service.scoring.paths import PathError, Steps, parse_path, walk

FORMATS = Path(__file__).parent / "formats"
STANDARD = "standard"
BUILT_IN = (STANDARD, "segment", "braze", "hubspot")
MAX_FILE_BYTES = 64 * 1024
MAX_DEPTH = 20

_ITEM = frozenset(
    {"$id", "$user", "$project", "$score", "$score_text", "$revision", "$updated", "$tier", "$attribute", "$index"}
)
_BODY = frozenset({"$items", "$now"})


class TemplateError(Exception):
    """A template file that cannot be used; the message says which and why."""


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an answer with a 2xx status tells of people that were refused.

    Attributes:
        success: Path of a value that is true where all went well; empty: not looked at.
        list: Path of the list of failures; empty: there is none.
        index: Path in a failure of the person's place in the batch.
        text: Path in a failure of the reason.
        again: Reasons that pass by themselves.
    """

    success: str = ""
    list: str = ""
    index: str = ""
    text: str = ""
    again: tuple[str, ...] = ()


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request's form.

    Attributes:
        batch: Most people in a request.
        bytes: Most bytes of a request's body.
        item_bytes: Most bytes of a person's part; 0: as many as `bytes`.
        body: The request's body, with `$items` somewhere.
        item: A person's part.
        authorization: How the token is sent: `none`, `bearer`, or `basic` (as the user, without a password).
        sign: Whether the request is signed as Standard Webhooks says.
        ordering: What the receiver does with an older score that comes late.
        failures: Where an answer tells of failures.
        name: What the template is called.
    """

    batch: int
    bytes: int
    body: Mapping[str, Any]
    item: Mapping[str, Any]
    item_bytes: int = 0
    authorization: Literal["none", "bearer", "basic"] = "none"
    sign: bool = False
    ordering: Literal["versioned", "last_write"] = "last_write"
    failures: Failures = Failures()
    name: str = ""

    @property
    def orders(self) -> Ordering:
        """`ordering`, as the sender knows it."""
        return Ordering(self.ordering)


class Failed(msgspec.Struct, frozen=True):
    """A person that an answer tells of.

    Attributes:
        index: The place in the batch; None: the answer does not say.
        reason: What it says.
        again: Whether that passes by itself.
    """

    index: int | None
    reason: str
    again: bool


def load_template(name_or_path: str) -> Template:
    """Read a built-in template by its name, or one's own by its path.

    Raises:
        TemplateError: There is no such file, or it is not a template.
    """
    import yaml  # noqa: PLC0415 # slow to import, and only used here

    path = FORMATS / f"{name_or_path}.yaml" if name_or_path in BUILT_IN else Path(name_or_path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise TemplateError(f"{path}: more than {MAX_FILE_BYTES} bytes")
        found = yaml.safe_load(text)
        template = msgspec.convert(found, Template)
    except OSError as error:
        raise TemplateError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise TemplateError(f"{path}: {' '.join(str(error).split())}") from error
    fault = fault_of(template)
    if fault:
        raise TemplateError(f"{path}: {fault}")
    return msgspec.structs.replace(template, name=name_or_path if name_or_path in BUILT_IN else path.name)


def fault_of(template: Template) -> str:
    """Return what is wrong with a template; empty: nothing."""
    if not 1 <= template.batch <= 100:  # noqa: PLR2004 - a sink's largest batch, said in the message
        return "batch is not from 1 to 100"
    if not 1000 <= template.bytes <= 10_000_000:  # noqa: PLR2004 - likewise
        return "bytes is not from 1000 to 10000000"
    if not 0 <= template.item_bytes <= template.bytes:
        return "item_bytes is not from 0 to bytes"
    return _shape_fault(template) or _failures_fault(template.failures)


def _shape_fault(template: Template) -> str:
    try:
        body, item = _placeholders(template.body), _placeholders(template.item)
    except RecursionError:
        return f"nested deeper than {MAX_DEPTH}"
    if unknown := sorted({*body} - _BODY):
        return f"body has {', '.join(unknown)}, which is not a placeholder there"
    if unknown := sorted({*item} - _ITEM):
        return f"item has {', '.join(unknown)}, which is not a placeholder there"
    if body.count("$items") != 1:
        return "body must have $items once"
    if not {*item} & {"$score", "$score_text"} or "$user" not in item:
        return "item must have $user, and $score or $score_text"
    return ""


def _failures_fault(failures: Failures) -> str:
    for name in ("success", "list", "index", "text"):
        text = getattr(failures, name)
        try:
            if text:
                parse_path(text)
        except PathError as error:
            return f"failures.{name}: {error}"
    return "failures.list needs failures.index" if failures.list and not failures.index else ""


def _placeholders(value: object, depth: int = 0) -> list[str]:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        return [value] if value.startswith("$") else []
    if isinstance(value, Mapping):
        found = [str(key) for key in value if str(key).startswith("$")]
        return found + [name for each in value.values() for name in _placeholders(each, depth + 1)]
    if isinstance(value, list):
        return [name for each in value for name in _placeholders(each, depth + 1)]
    return []


def change_id(change: ScoreChange) -> str:
    """Return the id of a change: the same for every attempt, and no part of it is the user's own text."""
    key = change.key
    told = msgspec.json.encode((key.project_id, key.user_id, change.revision))
    return hashlib.sha256(told).hexdigest()[:32]


def batch_id(ids: Sequence[str]) -> str:
    """Return the id of a message with several changes."""
    return f"msg_{hashlib.sha256(','.join(ids).encode()).hexdigest()[:32]}"


def item_bytes(template: Template, change: ScoreChange, index: int, attribute: str) -> bytes:
    """Return a person's part of the body, in JSON."""
    score = format_score(change.score) if change.score is not None else "0"
    values = {
        "$id": change_id(change),
        "$user": change.key.user_id,
        "$project": change.key.project_id,
        "$score": msgspec.Raw(score.encode()),
        "$score_text": score,
        "$revision": change.revision,
        "$updated": iso(change.updated_ms) or None,
        "$tier": change.tier or None,
        "$attribute": attribute.replace("{project}", change.key.project_id),
        "$index": str(index),
    }
    return msgspec.json.encode(_filled(template.item, values))


def body_bytes(template: Template, items: Sequence[bytes], now_ms: int) -> bytes:
    """Return a request's body."""
    values = {"$items": [msgspec.Raw(item) for item in items], "$now": iso(now_ms)}
    return msgspec.json.encode(_filled(template.body, values))


def _filled(value: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return values[value] if value.startswith("$") else value
    if isinstance(value, Mapping):
        return {
            (values[key] if isinstance(key, str) and key.startswith("$") else str(key)): _filled(each, values)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    return value


def failures_in(template: Template, answer: bytes) -> list[Failed]:
    """Return whom an answer with a 2xx status tells of as refused."""
    where = template.failures
    if not where.list and not where.success:
        return []
    try:
        tree = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [Failed(None, "the answer is not JSON", again=True)]
    found: list[Failed] = []
    listed = walk(tree, _steps(where.list)) if where.list else None
    for each in listed if isinstance(listed, list) else ():
        reason = walk(each, _steps(where.text)) if where.text else None
        reason = reason if isinstance(reason, str) else "refused"
        found.append(Failed(_index(walk(each, _steps(where.index))), reason[:200], again=reason in where.again))
    if where.success and walk(tree, _steps(where.success)) is not True:
        found.append(Failed(None, f"{where.success} is not true in the answer", again=False))
    return found


def _steps(path: str) -> Steps:
    return parse_path(path).steps


def _index(found: object) -> int | None:
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return int(found) if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) < 5 else None  # noqa: PLR2004 - no batch is larger
