"""Operators that give one number for each number of their inputs, as expressions in C.

The operands are names, numbers or elements of arrays, so that they may stand in an expression more than once.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .graph import Graph, Operator

Formula = str | Callable[[Graph, Operator], str]
"""An expression with {0}, {1}, {2} for its operands; or what makes one of an operator's options and types."""


def _typed(for_floats: str, for_integers: str) -> Callable[[Graph, Operator], str]:
    """Return a formula that depends on the type of the first operand."""
    return lambda graph, operator: for_floats if graph.tensors[operator.inputs[0]].dtype == "float32" else for_integers


def _leaky_relu(graph: Graph, operator: Operator) -> str:
    return f"{{0}} < 0.0f ? {{0}} * {literal(operator.options['alpha'], 'float32')} : {{0}}"


def _gelu(graph: Graph, operator: Operator) -> str:
    if operator.options["approximate"]:
        return "0.5f * {0} * (1.0f + tanh_f32(0.797884561f * {0} * (1.0f + 0.044715f * {0} * {0})))"
    return "0.5f * {0} * (1.0f + erf_f32({0} * 0.707106781f))"


def _cast(graph: Graph, operator: Operator) -> str:
    return f"({C_TYPES[graph.tensors[operator.outputs[0]].dtype]}){{0}}"


def _clip(low: str, high: str) -> str:
    return f"{{0}} < {low} ? {low} : ({{0}} > {high} ? {high} : {{0}})"


FORMULAS: Mapping[str, Formula] = {
    "ABS": _typed("{0} < 0.0f ? -{0} : {0} + 0.0f", "{0} < 0 ? -{0} : {0}"),
    "ADD": "{0} + {1}",
    "ADD_N": lambda graph, operator: " + ".join(f"{{{k}}}" for k in range(len(operator.inputs))),
    "ATAN2": "atan2f({0}, {1})",
    "CAST": _cast,
    "CEIL": "ceilf({0})",
    "COS": "cosf({0})",
    "DIV": "{0} / {1}",
    "ELU": "{0} < 0.0f ? expm1_f32({0}) : {0}",
    "EQUAL": "{0} == {1}",
    "EXP": "exp_f32({0})",
    "FILL": "{1}",
    "FLOOR": "floorf({0})",
    "FLOOR_DIV": _typed("floorf({0} / {1})", "floor_div({0}, {1})"),
    "FLOOR_MOD": _typed("floor_mod_f32({0}, {1})", "{0} - floor_div({0}, {1}) * {1}"),
    "GELU": _gelu,
    "GREATER": "{0} > {1}",
    "GREATER_EQUAL": "{0} >= {1}",
    "HARD_SWISH": "{0} * ({0} < -3.0f ? 0.0f : ({0} > 3.0f ? 1.0f : {0} * 0.166666667f + 0.5f))",
    "LEAKY_RELU": _leaky_relu,
    "LESS": "{0} < {1}",
    "LESS_EQUAL": "{0} <= {1}",
    "LOG": "log_f32({0})",
    "LOGICAL_AND": "{0} && {1}",
    "LOGICAL_NOT": "!{0}",
    "LOGICAL_OR": "{0} || {1}",
    "LOGISTIC": "sigmoid_f32({0})",
    "MAXIMUM": "{0} < {1} ? {1} : {0}",
    "MINIMUM": "{0} > {1} ? {1} : {0}",
    "MUL": "{0} * {1}",
    "NEG": "-{0}",
    "NOT_EQUAL": "{0} != {1}",
    "POW": "powf({0}, {1})",
    "PRELU": "{0} < 0.0f ? {0} * {1} : {0}",
    "RELU": "{0} < 0.0f ? 0.0f : {0}",
    "RELU6": _clip("0.0f", "6.0f"),
    "RELU_0_TO_1": _clip("0.0f", "1.0f"),
    "RELU_N1_TO_1": _clip("-1.0f", "1.0f"),
    "ROUND": "rintf({0})",
    "RSQRT": "1.0f / sqrtf({0})",
    "SELECT": "{0} ? {1} : {2}",
    "SELECT_V2": "{0} ? {1} : {2}",
    "SIGN": _typed("{0} > 0.0f ? 1.0f : ({0} < 0.0f ? -1.0f : {0})", "({0} > 0) - ({0} < 0)"),
    "SIN": "sinf({0})",
    "SQRT": "sqrtf({0})",
    "SQUARE": "{0} * {0}",
    "SQUARED_DIFFERENCE": "({0} - {1}) * ({0} - {1})",
    "SUB": "{0} - {1}",
    "TANH": "tanh_f32({0})",
    "ZEROS_LIKE": _typed("0.0f", "0"),
}
"""Operator -> its expression, of float32 where it isn't said otherwise."""

C_TYPES = {
    "float32": "float",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "bool",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint32": "uint32_t",
}
"""NumPy's name of a type -> C's."""


def expression(graph: Graph, operator: Operator, operands: list[str]) -> str:
    """Return the expression of an operator for its operands."""
    formula = FORMULAS[operator.kind]
    return (formula if isinstance(formula, str) else formula(graph, operator)).format(*operands)


def literal(value: float, dtype: str) -> str:
    """Return a number as it is written in C, to its last bit."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype != "float32":
        suffix = "LL" if dtype == "int64" else ""
        least = {"int32": -(1 << 31), "int64": -(1 << 63)}.get(dtype)
        return f"({value + 1}{suffix} - 1)" if value == least else f"{int(value)}{suffix}"
    number = np.float32(value)
    if not np.isfinite(number):
        return "NAN" if np.isnan(number) else "INFINITY" if number > 0 else "-INFINITY"
    text = str(number)
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
