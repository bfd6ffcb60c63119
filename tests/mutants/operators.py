"""The changes that make mutants: each is applied at one place of a module's syntax tree."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: A change of one node: returns the nodes that may stand in its place.
Operator = Callable[[ast.AST], list[ast.AST]]

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
#: Calls whose removal nobody but a reader of logs sees.
SILENT_CALLS = frozenset({"debug", "info", "warn_explicit"})
#: Calls whose arguments may stand in any order.
COMMUTATIVE = frozenset({"max", "min"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed module.

    Attributes:
        name: where and what, without line numbers, so that it stays the same when other lines move.
        line: of the module as it is.
        tree: the changed module.
    """

    name: str
    line: int
    tree: ast.Module


def make_mutants(source: str) -> Iterator[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    module = ast.parse(source)
    seen: Counter[str] = Counter()
    for path, scope, node in list(_walk(module, [], [])):
        for replacement in _replacements(node):
            name = f"{'.'.join(scope) or '<module>'}: {_show(node)} -> {_show(replacement)}"
            seen[name] += 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            yield Mutant(name, getattr(node, "lineno", 0), _replace(module, path, replacement))


def _walk(
    node: ast.AST, path: list[tuple[str, int | None]], scope: list[str]
) -> Iterator[tuple[list[tuple[str, int | None]], list[str], ast.AST]]:
    """Give each node that may be changed, with the way to it and the functions around it."""
    if path:
        yield path, scope, node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = [*scope, node.name]
    for field, value in ast.iter_fields(node):
        if _is_no_behaviour(node, field):
            continue
        if isinstance(value, ast.AST):
            yield from _walk(value, [*path, (field, None)], scope)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                if isinstance(child, ast.AST) and not _is_declaration(node, field, index, child):
                    yield from _walk(child, [*path, (field, index)], scope)


def _is_no_behaviour(node: ast.AST, field: str) -> bool:
    """Return whether a field is a type, a decorator, or what only a reader sees."""
    if field in {"annotation", "returns", "decorator_list", "bases", "type_params", "ctx"}:
        return True
    return (isinstance(node, ast.Raise) and field in {"exc", "cause"}) or isinstance(node, ast.Assert)


def _is_declaration(node: ast.AST, field: str, index: int, child: ast.AST) -> bool:
    is_docstring = field == "body" and isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    is_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
    bases = child.bases if isinstance(child, ast.ClassDef) else []
    is_protocol = any("Protocol" in ast.unparse(base) for base in bases)
    return is_docstring or is_typing or is_protocol or isinstance(child, ast.Import | ast.ImportFrom)


def _replacements(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for operator in OPERATORS:
        found += operator(node)
    return found


def compare(node: ast.AST) -> list[ast.AST]:
    """Move or turn a comparison."""
    if not isinstance(node, ast.Compare):
        return []
    changed = []
    for index, operator in enumerate(node.ops):
        if other := COMPARISONS.get(type(operator)):
            one = copy.deepcopy(node)
            one.ops[index] = other()
            changed.append(one)
    return list(changed)


def swap_and_or(node: ast.AST) -> list[ast.AST]:
    """Put `or` for `and`."""
    if not isinstance(node, ast.BoolOp):
        return []
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return [ast.BoolOp(other, node.values)]


def drop_not(node: ast.AST) -> list[ast.AST]:
    """Leave out a `not`."""
    return [node.operand] if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else []


def change_arithmetic(node: ast.AST) -> list[ast.AST]:
    """Put another operator between two numbers."""
    if isinstance(node, ast.BinOp) and (other := ARITHMETIC.get(type(node.op))):
        if isinstance(node.left, ast.Constant | ast.JoinedStr) and isinstance(
            getattr(node.left, "value", ""), str
        ):
            return []
        return [ast.BinOp(node.left, other(), node.right)]
    if isinstance(node, ast.AugAssign) and (other := ARITHMETIC.get(type(node.op))):
        return [ast.AugAssign(node.target, other(), node.value)]
    return []


def change_constant(node: ast.AST) -> list[ast.AST]:
    """Turn a truth value, add one to a number."""
    if not isinstance(node, ast.Constant):
        return []
    if isinstance(node.value, bool):
        return [ast.Constant(not node.value)]
    if isinstance(node.value, int | float):
        return [ast.Constant(node.value + 1)]
    return []


def return_none(node: ast.AST) -> list[ast.AST]:
    """Return nothing."""
    if not isinstance(node, ast.Return) or node.value is None:
        return []
    if isinstance(node.value, ast.Constant) and node.value.value is None:
        return []
    return [ast.Return(ast.Constant(None))]


def remove_statement(node: ast.AST) -> list[ast.AST]:
    """Leave out a call, an assignment to an attribute or an item, a deletion, or a raise."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        return [] if isinstance(called, ast.Attribute) and called.attr in SILENT_CALLS else [ast.Pass()]
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [ast.Pass()] if all(isinstance(t, ast.Attribute | ast.Subscript) for t in targets) else []
    if isinstance(node, ast.Raise | ast.Delete):
        return [ast.Pass()]
    return []


def change_loop(node: ast.AST) -> list[ast.AST]:
    """Leave a loop rather than go on with it, and the other way round."""
    if isinstance(node, ast.Continue):
        return [ast.Break()]
    return [ast.Continue()] if isinstance(node, ast.Break) else []


def negate_condition(node: ast.AST) -> list[ast.AST]:
    """Take the other branch, where no other operator does it."""
    if not isinstance(node, ast.If | ast.While | ast.IfExp):
        return []
    if isinstance(node.test, ast.Compare | ast.Constant) or (
        isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
    ):
        return []
    changed = copy.copy(node)
    changed.test = ast.UnaryOp(ast.Not(), node.test)
    return [changed]


def swap_arguments(node: ast.AST) -> list[ast.AST]:
    """Swap the first two arguments of a call."""
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return []
    first, second, *rest = node.args
    if isinstance(first, ast.Starred) or isinstance(second, ast.Starred):
        return []
    if isinstance(node.func, ast.Name) and node.func.id in COMMUTATIVE:
        return []
    return [ast.Call(node.func, [second, first, *rest], node.keywords)]


OPERATORS: tuple[Operator, ...] = (
    compare,
    swap_and_or,
    drop_not,
    change_arithmetic,
    change_constant,
    return_none,
    remove_statement,
    change_loop,
    negate_condition,
    swap_arguments,
)


def _replace(module: ast.Module, path: list[tuple[str, int | None]], replacement: ast.AST) -> ast.Module:
    changed = copy.deepcopy(module)
    parent: ast.AST = changed
    for field, index in path[:-1]:
        value = getattr(parent, field)
        parent = value if index is None else value[index]
    field, index = path[-1]
    fresh = copy.deepcopy(replacement)
    if index is None:
        setattr(parent, field, fresh)
    else:
        getattr(parent, field)[index] = fresh
    return ast.fix_missing_locations(changed)


def _show(node: ast.AST) -> str:
    """Return the node's text on one line: of a block only its head."""
    shown = node.test if isinstance(node, ast.If | ast.While) else node
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(shown))).split())
    return text if len(text) <= 90 else f"{text[:60]}...{text[-27:]}"
