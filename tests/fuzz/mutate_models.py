"""Mutators of models: changes of single bytes, and changes of the fields of a protobuf message."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_NUMBERS = (0, 1, -1, 2, 7, 64, 255, 1 << 16, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_REALS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))
_TEXTS = (
    "",
    "input",
    "embedding",
    "x",
    "..",
    "../x",
    "\x1b[31m",
    "a" * 300,
    "sixpixels/x",
    "phase_train",
    "Relu",
    "If",
)
_MOST_DEPTH = 12


def bytes_mutant(content: bytes, rng: random.Random) -> bytes:
    """Change a file in a few places without knowing its format: flip, overwrite, cut, insert, repeat."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        way = rng.randrange(6)
        if way == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(changed):
            changed[at] = rng.choice((0, 1, 127, 128, 255))
        elif way == 2:
            del changed[at : at + rng.choice((1, 2, 16, 4096))]
        elif way == 3:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif way == 4:
            changed[at:at] = changed[at : at + rng.choice((8, 64, 1024))]
        else:
            del changed[at:]
    return bytes(changed)


def message_mutant(message: Message, rng: random.Random) -> bytes:
    """Change one to four fields anywhere in a protobuf message, and serialize it."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(_somewhere(changed, rng), rng)
    return changed.SerializeToString()


def _somewhere(message: Message, rng: random.Random) -> Message:
    """Walk from a message into one of those inside it."""
    for _ in range(_MOST_DEPTH):
        inside = [part for _, value in message.ListFields() for part in _messages(value)]
        if not inside or rng.random() < 0.25:
            return message
        message = rng.choice(inside)
    return message


def _messages(value: Any) -> list[Message]:
    if isinstance(value, Message):
        return [value]
    if hasattr(value, "values"):  # a map
        return [v for v in value.values() if isinstance(v, Message)]
    if hasattr(value, "add"):  # repeated messages
        return list(value)
    return []


def _change(message: Message, rng: random.Random) -> None:
    """Remove, repeat, shuffle or replace one field of a message."""
    fields = list(message.DESCRIPTOR.fields)
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else fields)
    if rng.random() < 0.2:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    if hasattr(value, "MergeFrom") and not isinstance(value, Message):
        if hasattr(value, "values"):
            value.clear()
        elif field.message_type is not None:
            _change_messages(value, rng)
        else:
            _change_numbers(value, field, rng)
    elif isinstance(value, Message):
        if rng.random() < 0.5:
            value.Clear()
        else:
            value.SetInParent()
    else:
        _set(message, field, rng)


def _change_messages(values: Any, rng: random.Random) -> None:
    way = rng.randrange(4)
    if way == 0 and len(values):
        del values[rng.randrange(len(values))]
    elif way == 1 and len(values):
        values.add().CopyFrom(rng.choice(list(values)))
    elif way == 2 and len(values) > 1:
        shuffled = list(values)
        rng.shuffle(shuffled)
        copies = [type(one).FromString(one.SerializeToString()) for one in shuffled]
        del values[:]
        values.extend(copies)
    else:
        values.add()


def _change_numbers(values: Any, field: FieldDescriptor, rng: random.Random) -> None:
    items = list(values)
    way = rng.randrange(3)
    if way == 0 and items:
        items.pop(rng.randrange(len(items)))
    elif way == 1 and items:
        items[rng.randrange(len(items))] = _value(field, rng)
    else:
        items.insert(rng.randrange(len(items) + 1), _value(field, rng))
    del values[:]
    values.extend(items)


def _set(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    old = getattr(message, field.name)
    new = bytes_mutant(old, rng) if isinstance(old, bytes) and old and rng.random() < 0.5 else _value(field, rng)
    setattr(message, field.name, new)


def _value(field: FieldDescriptor, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(_REALS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(_TEXTS)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    low = 0 if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64) else -(1 << (bits - 1))
    return max(low, min(rng.choice(_NUMBERS), (1 << (bits - 1)) - 1))


def mutator(content: bytes, kind: Callable[[], Message]) -> Callable[[random.Random], bytes]:
    """Return a function that makes mutants of a serialized message, two thirds of them by its structure."""
    message = kind()
    message.ParseFromString(content)
    return lambda rng: message_mutant(message, rng) if rng.random() < 2 / 3 else bytes_mutant(content, rng)
