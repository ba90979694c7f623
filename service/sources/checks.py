"""What must fit together in a source beyond each field by itself."""

from __future__ import annotations

from collections.abc import Iterator

from service.scoring.paths import Path
from service.sources.model import NEEDS_PRESENCE, PERSON_FIELDS, Case, SourceSpec, Value

Found = tuple[tuple[str, ...], str]
"""Where, as keys from the source down, and what."""

_SINGLE = ("project", "user_agent", "sent")
"""Fields that have one value, however many people an event concerns."""


def check_source(spec: SourceSpec) -> Iterator[Found]:
    """Yield what is wrong with a source whose fields are right by themselves."""
    for checks in spec.when:
        if not any(
            check.mode in NEEDS_PRESENCE and check.path.steps and isinstance(check.path.steps[0], str)
            for check in checks
        ):
            yield ("when",), "something must be there: one entry has to be a text, a `prefix`, or {exists: true}"
    for name, path in (("within", spec.within), ("recipients", spec.recipients), *(("by", path) for path in spec.by)):
        if path is not None and path.rest is not None:
            yield (name,), "[*] cannot stand here; name the array itself, or one element such as [0]"
    if spec.cases and not spec.by:
        yield ("cases",), "`by` is missing: which path chooses the case? For example `by: type`"
    if spec.by and not spec.cases:
        yield ("by",), "`cases` are missing: what do they look like?"
    if not spec.cases:
        yield from _check_case(spec, spec.base, ())
    for key, case in spec.cases.items():
        if "*" in key[:-1]:
            yield (
                ("cases", key),
                f"{key[:60]!r} cannot be a case: write a text, or its beginning and *, or * for all others",
            )
        yield from _check_case(spec, case, ("cases", key))


def _check_case(spec: SourceSpec, own: Case, where: tuple[str, ...]) -> Iterator[Found]:
    case = spec.merged(own)
    if case.skip:
        return
    if not case.teach and "event_type" not in case.values:
        yield where, "`event_type` is missing; write a path, or a constant such as =order.placed"
    people = [name for name in PERSON_FIELDS if name in case.values]
    if case.teach:
        if "user" not in people or len(people) == 1:
            yield where, "`teach` needs `user`, and another name that belongs to it such as `email`"
    elif not people and not spec.nobody_is_anonymous:
        yield where, f"nobody is named; write at least one of {', '.join(f'`{name}`' for name in PERSON_FIELDS)}"
    yield from _check_arrays(case, where)


def _check_arrays(case: Case, where: tuple[str, ...]) -> Iterator[Found]:
    """At most one array is gone through: which element of one belongs to which of another would be a guess."""
    arrays: dict[tuple[object, ...], str] = {}
    for name, value in case.values.items():
        at = (*where, name)
        for path in _paths(value):
            if path.rest is None:
                continue
            if name in _SINGLE:
                yield at, f"[*] cannot stand here: {name} is the same for every element; write for example [0]"
                continue
            arrays.setdefault((path.from_top, *path.steps), path.text)
            if len(arrays) > 1:
                first, other = list(arrays.values())[:2]
                yield at, f"two different arrays are gone through with [*], {first} and {other}; only one can be"
                return


def _paths(value: Value) -> Iterator[Path]:
    """Paths of a value; those of its conditions look at all elements by themselves."""
    for term in value.all_terms():
        if term.path is not None:
            yield term.path
