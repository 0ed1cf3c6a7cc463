"""All that an object holds, as nested tuples that can be compared: has anything changed?

Knows no class by name; what need not be the same is named by whoever asks.
"""

import functools
from collections import deque
from collections.abc import Collection
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import msgspec

_CALLABLE = (FunctionType, MethodType, BuiltinFunctionType, functools.partial)
_PLAIN = (str, bytes, int, float, bool, Enum, type(None), type)


def freeze(value: Any, *, leave_out: Collection[tuple[str, str]] = ()) -> Any:
    """The whole of `value`; what is reached twice stands there once. `leave_out`: (class, attribute)s."""
    return _freeze(value, frozenset(leave_out), {})


def difference(before: Any, after: Any, path: str = "") -> str:
    """Where two frozen values differ, for a person; '' where they do not."""
    if before == after:
        return ""
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            if one != other:
                named = isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str)
                return difference(one, other, f"{path}.{one[0] if named else at}")
    return f"{path}: {str(before)[:300]} became {str(after)[:300]}"


def _freeze(value: Any, leave_out: frozenset[tuple[str, str]], seen: dict[int, int]) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, msgspec.Struct) and value.__struct_config__.frozen:
        return value
    if id(value) in seen:
        return ("the", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, dict):
        return tuple([(_freeze(k, leave_out, seen), _freeze(v, leave_out, seen)) for k, v in value.items()])
    if isinstance(value, set | frozenset):
        return frozenset([_freeze(each, leave_out, seen) for each in value])
    if isinstance(value, list | tuple | deque):
        return tuple([_freeze(each, leave_out, seen) for each in value])
    if isinstance(value, _CALLABLE):
        return "callable"
    name = type(value).__name__
    return (
        name,
        tuple([(k, _freeze(v, leave_out, seen)) for k, v in _attributes(value) if (name, k) not in leave_out]),
    )


def _attributes(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        return [(key, getattr(value, key)) for key in value.__struct_fields__]
    return [(key, getattr(value, key)) for key in _slots(type(value))] + list(getattr(value, "__dict__", {}).items())


@functools.cache
def _slots(kind: type) -> tuple[str, ...]:
    return tuple(slot for each in kind.__mro__ for slot in getattr(each, "__slots__", ()))
