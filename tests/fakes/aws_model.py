"""What botocore's model of a service says against a request or an answer: its validator, and limits beside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator


def request_faults(service: str, operation: str, params: dict[str, Any]) -> list[str]:
    """Return what is wrong with an operation's arguments."""
    return _faults(_model(service, operation).input_shape, params)


def answer_faults(service: str, operation: str, answer: dict[str, Any]) -> list[str]:
    """Return what is wrong with an operation's answer."""
    given = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    return _faults(_model(service, operation).output_shape, given)


def _model(service: str, operation: str) -> Any:  # noqa: ANN401 # botocore has no types
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


def _faults(shape: Shape, value: dict[str, Any]) -> list[str]:
    report = ParamValidator().validate(value, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(_limits(shape, value, shape.name))


def _limits(shape: Shape, value: Any, where: str) -> Iterator[str]:  # noqa: ANN401 # JSON
    meta = shape.metadata
    size = len(value) if isinstance(value, str | list | dict) else value if isinstance(value, int | float) else None
    if size is not None and not meta.get("min", size) <= size <= meta.get("max", size):
        yield f"{where}: {size} is out of bounds"
    if isinstance(value, str) and "pattern" in meta and not re.search(meta["pattern"], value):
        yield f"{where}: does not look like {meta['pattern']}"
    if isinstance(value, str) and meta.get("enum") and value not in meta["enum"]:
        yield f"{where}: {value} is not a value it can have"
    if shape.type_name == "structure" and isinstance(value, dict):
        for name in value.keys() & shape.members.keys():
            yield from _limits(shape.members[name], value[name], f"{where}.{name}")
    elif shape.type_name == "list" and isinstance(value, list):
        for number, each in enumerate(value):
            yield from _limits(shape.member, each, f"{where}[{number}]")
    elif shape.type_name == "map" and isinstance(value, dict):
        for key, each in value.items():
            yield from _limits(shape.key, key, f"{where} key")
            yield from _limits(shape.value, each, f"{where}.{key}")
