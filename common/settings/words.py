"""What a value of a declared setting looks like, in words."""

from collections.abc import Sequence
from typing import Any

from msgspec import inspect


def right(type_: Any) -> str:
    """What a value of a declared type looks like, in words."""
    kind = inspect.type_info(type_)
    if isinstance(kind, inspect.UnionType):  # of something and None, which stands for nothing said
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    examples: list[str] = []
    if isinstance(kind, inspect.Metadata):
        examples = (kind.extra_json_schema or {}).get("examples", [])
        kind = kind.type
    if examples:
        return f"something like {_either(examples)}"
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return _either(kind.values)
        case inspect.IntType():
            return f"a whole number {_range(kind)}"
        case inspect.FloatType():
            return f"a number {_range(kind)}"
        case inspect.StrType():
            bounds = {"or more": kind.min_length, "or fewer": kind.max_length}
            said = [f" of {length} {words} characters" for words, length in bounds.items() if length]
            return f"a text{' and'.join(said)}"
    raise TypeError(f"a setting of a kind that nobody can explain: {kind}")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    least = f"above {kind.gt:.10g}" if kind.gt is not None else f"from {kind.ge:.10g}"
    return f"{least} to {kind.le:.10g}"


def _either(choices: Sequence[Any]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last
