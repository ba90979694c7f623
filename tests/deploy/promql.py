"""What a query asks for, against what the service has: series and their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from service.observability.metrics import Metrics
from tests.deploy.files import rules

SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus adds to all it scrapes."""

_SUFFIXES = {
    "counter": {"_total": (), "_created": ()},
    "gauge": {"": ()},
    "histogram": {"_bucket": ("le",), "_sum": (), "_count": (), "_created": ()},
    "info": {"_info": ("python", "version")},
}


def series() -> dict[str, frozenset[str]]:
    """Return every series there can be, with its label names: the catalogue's, the rules', Prometheus's own."""
    metrics = Metrics(process=True)
    found: dict[str, frozenset[str]] = {
        "up": SCRAPED,
        "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
    }
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for suffix, more in _SUFFIXES[metric._type].items():
                found[f"{metric._name}{suffix}"] = frozenset(metric._labelnames) | set(more) | SCRAPED
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, frozenset(sample.labels) | SCRAPED)
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), SCRAPED)
    for rule in rules():
        if "record" in rule:
            kept: set[str] = set()
            for part in walk(promql_parser.parse(rule["expr"])):
                if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
                    kept |= set(part.modifier.labels)
            found[rule["record"]] = frozenset(kept)
    return found


def walk(part: object) -> Iterator[object]:
    """Yield a query's parts, the whole first."""
    yield part
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(part, name, None)
        if inner is not None:
            yield from walk(inner)
    for argument in getattr(part, "args", None) or ():
        yield from walk(argument)


def faults(expression: str, known: Mapping[str, frozenset[str]]) -> list[str]:
    """Return what is wrong with a query: syntax, unknown series, unknown labels, lags added up.

    Raises:
        ValueError: It is no PromQL.
    """
    query = promql_parser.parse(expression)
    found = []
    for part in walk(query):
        if isinstance(part, promql_parser.VectorSelector):
            if part.name not in known:
                found.append(f"no such series: {part.name}")
                continue
            labels = {matcher.name for matcher in part.matchers.matchers} - known[part.name]
            found += [f"{part.name} has no label {label}" for label in sorted(labels)]
        if isinstance(part, promql_parser.AggregateExpr):
            inside = [inner for inner in walk(part.expr) if isinstance(inner, promql_parser.VectorSelector)]
            had = set().union(*(known.get(selector.name, frozenset()) for selector in inside))
            grouped = set(part.modifier.labels) if part.modifier is not None else set()
            found += [f"nothing inside has the label {label}" for label in sorted(grouped - had)]
            lags = [selector.name for selector in inside if selector.name.endswith(("lag_seconds", "lag_seconds:max"))]
            if lags and str(part.op) != "max":
                found.append(f"{part.op} of {lags[0]}: only the worst lag means something")
    return found
