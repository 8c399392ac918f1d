"""Parses conditions on the rows of a table, such as `language == "en" and duration > 5`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from codectok.errors import InputError

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_TEXT_FUNCTIONS: Mapping[str, Callable[[pc.Expression, str], pc.Expression]] = {
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
    "contains": pc.match_substring,
}
# Pyarrow descends into a condition, and the stack of the process ends after some thousands.
MAX_COMPARISONS = 1000
HELP = (
    'compare columns with values, as in language == "en" and duration > 5; use and, or, not, in [...], is None,'
    " contains(text, ...), starts_with(...), ends_with(...)"
)


def parse_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Parse a condition on the columns of `schema`.

    A null is unlike every value: tests of a null are false, and their negations are true.

    Raises:
        InputError: the condition is not valid, names an unknown column, or has values that do not fit the columns.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        if sum(isinstance(node, ast.cmpop | ast.Call) for node in ast.walk(tree)) > MAX_COMPARISONS:
            raise InputError(f"The condition has more than {MAX_COMPARISONS:,} comparisons; use in [...] instead.")
        condition = _Parser(schema).condition(tree.body)
        schema.empty_table().filter(condition)  # refuses a number that is compared with a text
    except (pa.ArrowException, OverflowError):
        raise InputError(f"The condition {text!r} cannot be understood; its values do not fit the columns.") from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(f"The condition {text!r} cannot be understood; {HELP}.") from None
    return condition


class _Parser:
    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def condition(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.BoolOp(op=ast.And(), values=[first, *rest]):
                found = self.condition(first)
                for other in rest:
                    found &= self.condition(other)
                return found
            case ast.BoolOp(op=ast.Or(), values=[first, *rest]):
                found = self.condition(first)
                for other in rest:
                    found |= self.condition(other)
                return found
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.condition(operand)
            case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=None)]):
                return self.column(left).is_null()
            case ast.Compare(left=left, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
                return self.column(left).is_valid()
            case ast.Compare(
                left=left,
                ops=[ast.In() | ast.NotIn() as op],
                comparators=[ast.List(elts=values) | ast.Tuple(elts=values)],
            ):
                found = self.is_in(left, [self.value(value) for value in values])
                return ~found if isinstance(op, ast.NotIn) else found
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                operands = [self.operand(one) for one in (left, *comparators)]
                comparisons = [
                    _compare(type(op), a, b)
                    for op, a, b in zip(ops, operands, operands[1:], strict=False)
                    if type(op) in _COMPARISONS
                ]
                if len(comparisons) < len(ops):
                    raise ValueError("unknown comparison")
                found = comparisons[0]
                for other in comparisons[1:]:
                    found &= other
                return found
            case ast.Call(func=ast.Name(id=name), args=[column, ast.Constant(value=str(text))], keywords=[]):
                if name in _TEXT_FUNCTIONS:
                    return _false_for_null(_TEXT_FUNCTIONS[name](self.column(column), text))
        raise ValueError("not a condition")

    def operand(self, node: ast.expr) -> pc.Expression:
        return self.column(node) if isinstance(node, ast.Name) else pc.scalar(self.value(node))

    def is_in(self, node: ast.expr, values: list[str | int | float | bool]) -> pc.Expression:
        column = self.column(node)
        # Without values, pyarrow would look for values of its type of nulls.
        return column.isin(pa.array(values)) if values else pc.scalar(False)

    def column(self, node: ast.expr) -> pc.Expression:
        if not isinstance(node, ast.Name):
            raise ValueError("not a column")
        if node.id not in self._schema.names:
            known = ", ".join(name for name in self._schema.names if name != "codes")
            raise InputError(f"There is no column {node.id!r}; choose from {known}.")
        kind = self._schema.field(node.id).type
        # Files of other programs may have large strings, or a column of nulls.
        return pc.field(node.id).cast(kind.value_type if pa.types.is_dictionary(kind) else kind)

    def value(self, node: ast.expr) -> str | int | float | bool:
        found = ast.literal_eval(node)
        if not isinstance(found, str | int | float | bool):
            raise ValueError("not a value")
        return found


def _compare(op: type[ast.cmpop], a: pc.Expression, b: pc.Expression) -> pc.Expression:
    if op is ast.NotEq:
        return ~_compare(ast.Eq, a, b)
    return _false_for_null(_COMPARISONS[op](a, b))


def _false_for_null(condition: pc.Expression) -> pc.Expression:
    return pc.coalesce(condition, pc.scalar(False))
