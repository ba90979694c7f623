"""CloudFormation templates as data: read, and resolved with the parameters of one stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import yaml

Value: TypeAlias = Any
"""Whatever YAML holds."""

FOLDER = Path(__file__).parents[2] / "deploy" / "cloudformation"
NOTHING = object()
"""`AWS::NoValue`."""

PSEUDO = {
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "a-stack",
    "AWS::NoValue": NOTHING,
}


class _Loader(yaml.SafeLoader):
    pass


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def text(name: str) -> str:
    return (FOLDER / f"{name}.yml").read_text()


def load(name: str) -> dict[str, Any]:
    return yaml.load(text(name), Loader=_Loader)  # noqa: S506 # a SafeLoader with CloudFormation's tags


class Stack:
    """A template with parameters filled in; what CloudFormation would only know after creation stays a name."""

    def __init__(self, name: str, **parameters: str) -> None:
        self.template = load(name)
        unknown = set(parameters) - set(self.template["Parameters"])
        assert not unknown, f"{name} has no parameters {unknown}"
        self.parameters = {
            key: parameters.get(key, spec.get("Default", f"<{key}>"))
            for key, spec in self.template["Parameters"].items()
        }
        self.conditions = self.template.get("Conditions", {})
        self.resources = {
            key: self.resolve(resource)
            for key, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        return {key: item["Properties"] for key, item in self.resources.items() if item["Type"] == kind}

    def holds(self, condition: str) -> bool:
        return self._condition(self.conditions[condition])

    def _condition(self, expression: Value) -> bool:
        ((kind, value),) = expression.items()
        match kind:
            case "Condition":
                return self.holds(value)
            case "Fn::Equals":
                return str(self.resolve(value[0])) == str(self.resolve(value[1]))
            case "Fn::Not":
                return not self._condition(value[0])
            case "Fn::And":
                return all(map(self._condition, value))
            case "Fn::Or":
                return any(map(self._condition, value))
        raise AssertionError(f"unknown condition {kind}")

    def resolve(self, value: Value) -> Value:
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((kind, argument),) = value.items()
            if kind == "Ref":
                return self._ref(argument)
            if kind.startswith("Fn::"):
                return self._function(kind.removeprefix("Fn::"), argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NOTHING}

    def _ref(self, name: str) -> Value:
        return PSEUDO[name] if name in PSEUDO else self.parameters.get(name, f"<{name}>")

    def _function(self, kind: str, argument: Value) -> Value:
        match kind:
            case "If":
                return self.resolve(argument[1] if self.holds(argument[0]) else argument[2])
            case "GetAtt":
                return f"<{'.'.join(argument)}>"
            case "Sub":
                return self._sub(argument)
            case "Select":
                return self.resolve(argument[1])[int(argument[0])]
            case "Split":
                return self.resolve(argument[1]).split(argument[0])
            case "Join":
                return argument[0].join(map(str, self.resolve(argument[1])))
            case "Base64":
                return self.resolve(argument)
        raise AssertionError(f"unknown function {kind}")

    def _sub(self, argument: Value) -> str:
        pattern, names = argument if isinstance(argument, list) else (argument, {})
        known = PSEUDO | self.parameters | {key: self.resolve(item) for key, item in names.items()}
        for key, item in known.items():
            pattern = pattern.replace(f"${{{key}}}", str(item))
        return pattern


DIGEST = "sha256:" + "0" * 64
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/engagement-events"
PROJECT = "0123456789abcdef0123456789abcdef"


def service(**parameters: str) -> Stack:
    """The service as most would run it: both roles, Pinpoint, a topic."""
    chosen = {
        "ImageDigest": DIGEST,
        "StreamArn": STREAM,
        "PinpointProjectId": PROJECT,
        "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:on-call",
    }
    return Stack("service", **(chosen | parameters))
