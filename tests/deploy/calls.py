"""Which AWS operations a worker can make: found in the source, from the methods of the ports down.

A worker reaches AWS only through the ports (and `open`, which makes a source), so what these methods reach inside
`service/aws` and `service/sinks` is what it may call; what only commands call is not reached.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import botocore.session
from botocore import xform_name

from service.ingest import stores as pipeline_ports
from service.ingest.identity_rows import RowStore
from service.publish import follow
from service.publish import pipeline as publish_ports
from service.sinks.registry import LOOKUP, SINKS
from service.stream import ports as shard_ports

SERVICE = Path(__file__).parents[2] / "service"
ADAPTERS: dict[str, tuple[str, tuple[type, ...]]] = {
    "KinesisSource": ("stream", (shard_ports.ShardSource,)),
    "DynamoDbStreamSource": ("score stream", (shard_ports.ShardSource,)),
    "ScoreTableStreams": ("score stream", (follow.ScoreStreams,)),
    "LeaseTable": ("leases", (shard_ports.LeaseStore, shard_ports.Membership)),
    "PipelineTable": ("leases", (publish_ports.PipelineStore,)),
    "ScoreTable": ("scores", (pipeline_ports.ScoreStore,)),
    "DefinitionTable": ("definitions", (pipeline_ports.DefinitionSource, pipeline_ports.SourceRows)),
    "IdentityRows": ("identities", (RowStore,)),
    "FormerTable": ("identities", (pipeline_ports.FormerUsers,)),
    "UndefinedTable": ("identities", (pipeline_ports.UndefinedStore,)),
    "DeadLetterTable": ("dead letters", (pipeline_ports.DeadLetters,)),
}
"""Class -> the resource it works on, and the ports through which a worker reaches it. Sinks say themselves what they
need (`SinkType.actions`); `sink_actions` finds what their folders call."""

NOT_IN_A_WORKER = {"KinesisWriter", "RulesTable", "SourceTable", "Redriver", "Setup", "Doctor", "TakenOver"}
"""Classes that only commands use, with the operator's permissions."""

TOOLS = {"ItemReader"}
"""Classes that the others work with, each on a resource of its own; reached where they are made."""

SINK_SERVICES = tuple(dict.fromkeys(service for sink in SINKS.values() for service in sink.services))
MODELS = {
    service: botocore.session.get_session().get_service_model(service)
    for service in ("kinesis", "dynamodb", "dynamodbstreams", *SINK_SERVICES)
}
PREFIXES = {service: model.signing_name for service, model in MODELS.items()}
"""botocore's name of a service -> prefix of its IAM actions."""

AUTHORIZED_BY = {"profile:BatchPutProfileObject": "profile:PutProfileObject"}
"""Operation -> the action that allows it, where that has another name. IAM has no action for each batch operation
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonconnectcustomerprofiles.html)."""

STREAM_MODULES = {"dynamodb_streams": "dynamodbstreams", "kinesis": "kinesis"}
PARTIQL = re.compile(r'\b(INSERT) INTO "|\b(UPDATE) "|\b(DELETE) FROM "|\b(SELECT) ')


OPERATIONS = {service: {xform_name(name): name for name in model.operation_names} for service, model in MODELS.items()}


class Module:
    """One file: its functions by name, methods by class."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        self.name = ".".join(path.relative_to(SERVICE.parent).with_suffix("").parts)
        self.functions = {
            node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        self.classes = {
            node.name: {
                item.name: item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }
        self.imported = {
            alias.asname or alias.name: node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith(("service.aws", "service.sinks", "service.admin"))
            for alias in node.names
        }

    def methods(self) -> Iterator[ast.AST]:
        """Every method of a class of the file."""
        return (method for methods in self.classes.values() for method in methods.values())


MODULES = {
    module.name: module
    for folder in ("aws", "sinks", "admin")
    for module in map(Module, (SERVICE / folder).rglob("*.py"))
}
"""By dotted name: two files may have the same one in different folders."""


def _service_of(module: str, operation: str) -> str:
    source = STREAM_MODULES.get(module.rpartition(".")[2], "")
    if source and operation in OPERATIONS[source]:
        return source
    own = [sink.services for name, sink in SINKS.items() if f".sinks.{name.replace('-', '_')}." in module]
    order = [*(service for services in own for service in services), "dynamodb", "kinesis"]
    return next(service for service in order if operation in OPERATIONS[service])


def _actions(module: Module, node: ast.AST) -> Iterator[str]:
    known = {name for operations in OPERATIONS.values() for name in operations}
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and item.attr in known:
            owner = ast.unparse(item.value)
            if "client" in owner or owner in {"dynamodb", "streams"}:
                service = _service_of(module.name, item.attr)
                if item.attr != "batch_execute_statement":
                    yield f"{PREFIXES[service]}:{OPERATIONS[service][item.attr]}"
        if isinstance(item, ast.Constant) and isinstance(item.value, str) and (verb := PARTIQL.search(item.value)):
            yield f"dynamodb:PartiQL{next(filter(None, verb.groups())).capitalize()}"


def reached(module: Module, class_name: str, starts: set[str]) -> set[str]:
    """Return the IAM actions that methods `starts` of a class can come to."""
    found: set[str] = set()
    seen: set[tuple[str, str, str]] = set()
    todo = [(module, class_name, name) for name in starts]
    while todo:
        where, owner, name = todo.pop()
        if (where.name, owner, name) in seen:
            continue
        seen.add((where.name, owner, name))
        node = where.classes.get(owner, {}).get(name) if owner else where.functions.get(name)
        if node is None:
            continue
        found |= set(_actions(where, node))
        for item in ast.walk(node):
            if isinstance(item, ast.Attribute) and ast.unparse(item.value) in {"self", "cls"}:
                todo.append((where, owner, item.attr))
            elif isinstance(item, ast.Name) and item.id in where.functions:
                todo.append((where, "", item.id))
            elif isinstance(item, ast.Name) and where.imported.get(item.id) in MODULES:
                home = MODULES[where.imported[item.id]]
                todo.append((home, "", item.id))
                if item.id in TOOLS:
                    todo += [(home, item.id, method) for method in home.classes[item.id]]
    return found


def unknown_adapters() -> set[str]:
    """Return classes that speak to AWS and are in neither list above."""
    return {
        name
        for module in MODULES.values()
        for name, methods in module.classes.items()
        if ".sinks." not in module.name
        and name not in ADAPTERS.keys() | NOT_IN_A_WORKER | TOOLS
        and reached(module, name, set(methods))
    }


def sink_actions(sink: str) -> set[str]:
    """Return the IAM actions that the folder of a sink calls."""
    folder = f"service.sinks.{sink.replace('-', '_')}."
    return {
        AUTHORIZED_BY.get(action, action)
        for module in MODULES.values()
        if module.name.startswith(folder)
        for node in module.methods()
        for action in _actions(module, node)
    }


def worker_actions() -> dict[str, set[str]]:
    """Return the IAM actions a worker needs, by resource."""
    actions: dict[str, set[str]] = {"project": set(SINKS["pinpoint"].actions | LOOKUP.actions)}
    for module in MODULES.values():
        for name in ADAPTERS.keys() & module.classes.keys():
            resource, ports = ADAPTERS[name]
            methods = {method for port in ports for method in vars(port) if not method.startswith("_")} | {
                "__init__",
                "open",
                "find",
                "exists",
            }
            actions.setdefault(resource, set()).update(reached(module, name, methods))
    # Opening the score table's stream looks at the table first, and whether it has any item.
    of_the_table = actions["score stream"] & {"dynamodb:DescribeTable", "dynamodb:Scan"}
    actions["score stream"] -= of_the_table
    actions["scores"] |= of_the_table
    return actions
