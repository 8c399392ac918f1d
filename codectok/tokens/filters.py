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
HELP = (
    'compare columns with values, as in language == "en" and duration > 5; use and, or, not, in [...], is None,'
    " contains(text, ...), starts_with(...), ends_with(...)"
)


def parse_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Parse a condition on the columns of `schema`.

    Raises:
        InputError: the condition is not valid, or names an unknown column.
    """
    try:
        return _Parser(schema).condition(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        raise InputError(f"The condition {text!r} cannot be understood; {HELP}.") from None


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
            case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.List(elts=values) | ast.Tuple(elts=values)]):
                return self.column(left).isin([self.value(value) for value in values])
            case ast.Compare(
                left=left, ops=[ast.NotIn()], comparators=[ast.List(elts=values) | ast.Tuple(elts=values)]
            ):
                return ~self.column(left).isin([self.value(value) for value in values])
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                operands = [self.operand(one) for one in (left, *comparators)]
                comparisons = [
                    _COMPARISONS[type(op)](a, b)
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
                    return _TEXT_FUNCTIONS[name](self.column(column), text)
        raise ValueError("not a condition")

    def operand(self, node: ast.expr) -> pc.Expression:
        return self.column(node) if isinstance(node, ast.Name) else pc.scalar(self.value(node))

    def column(self, node: ast.expr) -> pc.Expression:
        if not isinstance(node, ast.Name):
            raise ValueError("not a column")
        if node.id not in self._schema.names:
            known = ", ".join(name for name in self._schema.names if name != "codes")
            raise InputError(f"There is no column {node.id!r}; choose from {known}.")
        kind = self._schema.field(node.id).type
        return pc.field(node.id).cast(kind.value_type) if pa.types.is_dictionary(kind) else pc.field(node.id)

    def value(self, node: ast.expr) -> str | int | float | bool:
        found = ast.literal_eval(node)
        if not isinstance(found, str | int | float | bool):
            raise ValueError("not a value")
        return found
