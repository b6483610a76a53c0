"""PromQL as Prometheus itself parses it (3.x: /api/v1/parse_query): asks whether an expression finds its data.

    for question in questions(parse, "sum(rate(a[5m] offset 1d)) / sum(b) > 0.5 and absent(c)"):
        assert prometheus.query(question)

An alert that does not fire has no result. What is asked instead is without thresholds, and without a past that a young
Prometheus does not have: here `sum(rate(a[5m])) / sum(b) > bool 0.5`, and `c`, and each of the selectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Node: TypeAlias = dict[str, Any]
Parse: TypeAlias = Callable[[str], Node]
"""A query → its syntax tree as the API gives it."""

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
_ABSENCE = frozenset({"absent", "absent_over_time"})
_INNER = ("expr", "lhs", "rhs", "param")
_PLAIN = ("anchored", "smoothed", "startOrEnd", "timestamp")
"""Features of selectors that `write` does not know."""


def questions(parse: Parse, query: str) -> list[str]:
    """Return the queries that all have a result where an expression finds its data, without duplicates."""
    tree = _parsed(parse, query)
    asked = [*_operands(tree), *selectors(tree)]
    return list(dict.fromkeys(write(_changed(each, _undated, _without_threshold)) for each in asked))


def without_offsets(parse: Parse, query: str) -> str:
    """Return the query about the present."""
    return write(_changed(_parsed(parse, query), _undated))


def _parsed(parse: Parse, query: str) -> Node:
    tree = parse(query)
    assert parse(write(tree)) == tree, f"{query}: not what was read: {write(tree)}"
    return tree


def selectors(tree: Node) -> Iterator[Node]:
    """Yield all selectors of a tree, each as one of an instant vector."""
    if tree["type"] in {"vectorSelector", "matrixSelector"}:
        yield tree | {"type": "vectorSelector"}
    for child in _children(tree):
        yield from selectors(child)


def _operands(tree: Node) -> Iterator[Node]:
    """Yield what set operators connect: each side has to find something, and what may not be absent is there."""
    match tree:
        case {"type": "parenExpr", "expr": inner}:
            yield from _operands(inner)
        case {"type": "binaryExpr", "op": "and" | "or" | "unless", "lhs": left, "rhs": right}:
            yield from _operands(left)
            yield from _operands(right)
        case {"type": "call", "func": {"name": name}, "args": [inner]} if name in _ABSENCE:
            yield from _operands(inner)
        case _:
            yield tree


def _undated(tree: Node) -> Node:
    return tree | {"offset": 0, "offsetExpr": None} if "offset" in tree else tree


def _without_threshold(tree: Node) -> Node:
    return tree | {"bool": True} if tree["type"] == "binaryExpr" and tree["op"] in COMPARISONS else tree


def _changed(tree: Node, *changes: Callable[[Node], Node]) -> Node:
    """Return a tree in which each node has been through the changes."""
    for change in changes:
        tree = change(tree)
    inner = {key: _changed(tree[key], *changes) for key in _INNER if tree.get(key)}
    if "args" in tree:
        inner["args"] = [_changed(each, *changes) for each in tree["args"]]
    return tree | inner


def _children(tree: Node) -> list[Node]:
    return [tree[key] for key in _INNER if tree.get(key)] + tree.get("args", [])


def write(tree: Node) -> str:
    """Return the text of a tree.

    Raises:
        NotImplementedError: for a part of PromQL that nobody here has used.

    """
    match tree:
        case {"type": "numberLiteral", "val": value}:
            return str(value)
        case {"type": "stringLiteral", "val": value}:
            return json.dumps(value, ensure_ascii=False)
        case {"type": "parenExpr", "expr": inner}:
            return f"({write(inner)})"
        case {"type": "unaryExpr", "op": operator, "expr": inner}:
            return f"{operator}{write(inner)}"
        case {"type": "call", "func": {"name": name}, "args": arguments}:
            return f"{name}({', '.join(map(write, arguments))})"
        case {"type": "vectorSelector" | "matrixSelector"}:
            return _selector(tree)
        case {"type": "subquery", "expr": inner, "range": span, "step": step}:
            return f"{write(inner)}[{span}ms:{f'{step}ms' if step else ''}]{_offset(tree)}"
        case {"type": "aggregation", "op": operator, "grouping": labels, "without": without, "param": parameter}:
            by = f" {'without' if without else 'by'} ({', '.join(labels)}) " if labels or without else ""
            return f"{operator}{by}({', '.join(write(each) for each in (parameter, tree['expr']) if each)})"
        case {"type": "binaryExpr", "lhs": left, "op": operator, "rhs": right}:
            return f"{write(left)} {operator}{' bool' if tree['bool'] else ''}{_matching(tree)} {write(right)}"
    raise NotImplementedError(tree["type"])


def _selector(tree: Node) -> str:
    _refuse(tree)
    shown = [each for each in tree["matchers"] if (each["name"], each["value"]) != ("__name__", tree["name"])]
    matchers = ", ".join(f"{each['name']}{each['type']}{json.dumps(each['value'])}" for each in shown)
    span = f"[{tree['range']}ms]" if tree["type"] == "matrixSelector" else ""
    return f"{tree['name']}{f'{{{matchers}}}' if matchers else ''}{span}{_offset(tree)}"


def _offset(tree: Node) -> str:
    _refuse(tree)
    return f" offset {tree['offset']}ms" if tree["offset"] else ""


def _refuse(tree: Node) -> None:
    if used := [feature for feature in _PLAIN if tree.get(feature)]:
        raise NotImplementedError(", ".join(used))


def _matching(tree: Node) -> str:
    matching = tree["matching"]
    if not matching:
        return ""
    if any(matching["fillValues"].values()):
        raise NotImplementedError("fill values")
    text = ""
    if matching["on"] or matching["labels"]:
        text = f" {'on' if matching['on'] else 'ignoring'} ({', '.join(matching['labels'])})"
    side = {"many-to-one": "group_left", "one-to-many": "group_right"}.get(matching["card"])
    return f"{text} {side} ({', '.join(matching['include'])})" if side else text
