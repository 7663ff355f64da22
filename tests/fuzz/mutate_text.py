"""Mutators of text and data files: of bytes, and of the structure of TOML, JSON, SQLite and CSV.

Every mutator takes a generator, so that the same seed gives the same mutants.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import numpy as np

Rng = np.random.Generator
# What parsers, and the code behind them, stumble over.
NUMBERS = (
    "0", "-1", "1", "2", "-0.0", "1e308", "-1e308", "1e-320", "1e999", "nan", "inf", "-inf", "true", "0x" + "f" * 400,
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 400, "-" + "9" * 400, "9" * 5000,
    "1." + "0" * 400, "4294967296", "1_000", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "255", "256", "65536",
)  # fmt: skip
TEXTS = (
    "", " ", "none", "mean3", "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "\u202e", "\ud800", "\u2028", "\n",
    "a" * 300, "a/" * 3000, "x" * 70_000, "9" * 400, "NaN", "*", "{}", "[]", "<script>", "|", ",", '"', "\\", "'", "%s",
    "{0}", "\ufeff",
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"),
    float("inf"), -float("inf"), [], {}, [[]], [{}], {"": []}, [0] * 5, ["x"] * 5, *TEXTS,
)  # fmt: skip


# A row is repeated up to here, so that mutants fit into memory.
_MOST_FIELDS = 200


def one_of(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def mutate_bytes(rng: Rng, content: bytes) -> bytes:
    """Flip, cut, repeat, swap and insert bytes at a few places."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 40))
        kind = int(rng.integers(6))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 50))
        elif kind == 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 8)))
        elif kind == 4:
            data[at : at + length] = one_of(rng, (*NUMBERS, *TEXTS)).encode("utf-8", "surrogatepass")
        else:
            data = data[:at]
    return bytes(data)


def mutate_toml(rng: Rng, content: bytes) -> bytes:
    """Change keys, values and tables of a TOML file."""
    lines = content.decode().split("\n")
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(lines)))
        key, equals, value = lines[at].partition("=")
        kind = int(rng.integers(10))
        if kind <= 4 and equals:
            lines[at] = f"{key}= {_toml_value(rng, value)}"
        elif kind == 5 and equals:
            lines[at] = f"{_toml_text(one_of(rng, TEXTS))} = {value}"
        elif kind == 6:
            del lines[at]
            lines = lines or [""]
        elif kind == 7:
            lines.insert(at, one_of(rng, lines))
        elif kind == 8:
            name = one_of(rng, ("defense", "model", "waiver", "gate", "a.b.c", "a" + ".a" * int(rng.integers(1, 3000))))
            lines.insert(at, one_of(rng, ("[{}]", "[[{}]]", "{} = 1")).format(name))
        else:
            lines[at] += one_of(rng, ("\0", "\x1b", " #\x07", ",", "]", '"""', "\r", "\ufeff"))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml_value(rng: Rng, value: str) -> str:
    deep = int(rng.integers(1, 2000))
    return str(
        one_of(
            rng,
            (
                one_of(rng, NUMBERS), one_of(rng, NUMBERS), _toml_text(one_of(rng, TEXTS)), f"[{value}]",
                "[" + ", ".join([one_of(rng, NUMBERS)] * int(rng.integers(0, 6))) + "]", f"{{ a = {value} }}",
                "[" * deep + "]" * deep, "{ a = " * (deep % 40) + "1" + " }" * (deep % 40), "{}", "[]",
                f"[[{one_of(rng, NUMBERS)}, 1]]" , "[" + "[1, 2]," * 5 + "]", '[{ name = "mean" }]',
            ),
        )
    )  # fmt: skip


def _toml_text(text: str) -> str:
    return json.dumps(text).replace("\\u007f", "\x7f")


def mutate_json(rng: Rng, content: bytes) -> bytes:
    """Change values, keys and lists of a JSON document."""
    document = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        places = [(None, None), *_places(document)]
        holder, key = places[int(rng.integers(len(places)))]
        if holder is None:
            if rng.integers(20) == 0:
                document = copy.deepcopy(one_of(rng, JSON_VALUES))
            continue
        _change(rng, document, holder, key)
    text = json.dumps(document)
    if rng.integers(10) == 0:
        deep = int(rng.integers(1, 100_000))
        raw = (
            *NUMBERS,
            "[" * deep + "]" * deep,
            '{"a":' * deep,
            "NaN",
            "Infinity",
            '{"schema": 2, "schema": 1}',
            '"\\ud800"',
        )
        at = int(rng.integers(len(text) + 1))
        text = text[:at] + one_of(rng, raw) + text[at + int(rng.integers(0, 3)) :]
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            inner = list(one.items()) if isinstance(one, dict) else list(enumerate(one))
            found += [(one, key) for key, _ in inner]
            waiting.extend(item for _, item in inner)
    return found


def _change(rng: Rng, document: Any, holder: Any, key: Any) -> None:
    kind = int(rng.integers(7))
    if kind <= 2:
        holder[key] = copy.deepcopy(one_of(rng, JSON_VALUES))
    elif kind == 3:
        del holder[key]
    elif kind == 4:  # a value of the same document, of the right type and in the wrong place
        places = _places(document)
        other, name = places[int(rng.integers(len(places)))]
        with suppress(KeyError, IndexError):
            holder[key] = copy.deepcopy(other[name])
    elif kind == 5 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 5:
        holder[one_of(rng, TEXTS)] = holder.pop(key)
    elif isinstance(holder[key], str):
        holder[key] += one_of(rng, TEXTS)
    elif isinstance(holder[key], int | float):
        holder[key] = -holder[key] if rng.integers(2) else holder[key] * 10**6 + 1


def mutate_sqlite(rng: Rng, content: bytes) -> bytes:
    """Change values of any type in a database whose schema stays the same text, and then perhaps its bytes."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(content)
        tables = dict(database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
        database.execute("PRAGMA writable_schema = ON")
        # Without STRICT, a column takes any value; the reader then finds the strict schema around it.
        database.execute("UPDATE sqlite_schema SET sql = replace(replace(sql, ' STRICT,', ''), ' STRICT', '')")
        loose = database.serialize()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(loose)
        for _ in range(int(rng.integers(1, 4))):
            with suppress(sqlite3.Error):
                _change_table(rng, database, one_of(rng, list(tables)))
        database.execute("PRAGMA writable_schema = ON")
        database.executemany(
            "UPDATE sqlite_schema SET sql = ? WHERE name = ?", [(sql, name) for name, sql in tables.items()]
        )
        changed = database.serialize()
    return mutate_bytes(rng, changed) if rng.integers(4) == 0 else changed


def _change_table(rng: Rng, database: sqlite3.Connection, table: str) -> None:
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    column, kind = one_of(rng, columns), int(rng.integers(6))
    count = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    row = int(rng.integers(max(count, 1)))
    values = (0, 1, -1, 2, 2**63 - 1, -(2**63), 0.5, 1e308, 9e999, b"\xff\0", b"", "x", "9" * 400, *TEXTS[:10])
    where = f"({', '.join(columns)}) = (SELECT {', '.join(columns)} FROM {table} LIMIT 1 OFFSET {row})"
    value = one_of(rng, values)
    if isinstance(value, str):
        value = value.replace("\ud800", "")
    if kind <= 2:
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))
    elif kind == 3:
        database.execute(f"DELETE FROM {table}" + (f" WHERE {where}" if rng.integers(2) else ""))
    elif kind == 4:
        database.execute(f"UPDATE {table} SET {column} = CAST(CAST({column} AS TEXT) AS BLOB) WHERE {where}")
    else:
        other = one_of(rng, columns)
        database.execute(f"UPDATE {table} SET {column} = {other}")


def mutate_csv(rng: Rng, content: bytes) -> bytes:
    """Change fields, rows, quotes and the encoding of a list with commas or tabs."""
    text = content.decode()
    comma = "\t" if "\t" in text else ","
    rows = [line.split(comma) for line in text.split("\n")]
    for _ in range(int(rng.integers(1, 5))):
        row = one_of(rng, rows)
        at, kind = int(rng.integers(len(row) + 1)), int(rng.integers(6))
        value = one_of(rng, (*TEXTS, *NUMBERS, '"', '"a', 'a"b', '"a\nb"', "x" * 200_000, "²", "٣", "-1"))
        if kind <= 1 and at < len(row):
            row[at] = value
        elif kind == 2:
            row.insert(at, value)
        elif kind == 3 and at < len(row):
            del row[at]
            row += [""] * (not row)
        elif kind == 4:
            rows.insert(int(rng.integers(len(rows))), list(row))
        else:
            row[:] = (row * int(rng.integers(1, 100)))[:_MOST_FIELDS]
    changed = one_of(rng, ("\n", "\r\n", "\r", "\n\n")).join(comma.join(row) for row in rows)
    codec = one_of(rng, (*["utf-8"] * 8, "utf-8-sig", "utf-16", "latin-1", "utf-32"))
    return changed.encode(codec, "surrogatepass" if codec.startswith("utf") else "replace")


def mutants(seeds: Callable[[], list[bytes]], mutate: Callable[[Rng, bytes], bytes]) -> Callable[[Rng], bytes]:
    """Make mutants of seeds: four in five by their structure, the others by their bytes."""
    return lambda rng: (mutate if rng.integers(5) else mutate_bytes)(rng, one_of(rng, seeds()))
