"""A value of another type than a dataclass declares must not slip into an assessment that is read back."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from toolkit.audit.plan import Unavailable
from toolkit.audit.replaying.detection import DetectionPoint
from toolkit.audit.results.assessment import Target
from toolkit.documents import _plain, from_plain
from toolkit.errors import InputError
from toolkit.plain import parse_json
from toolkit.statistics.intervals import Rate

TARGET = Target("m", "m.onnx", "0" * 64, None, "CPU", "auto", "cosine", 0.5, 2.0, 8, 8, None, "1.2", None)
POINTS = (DetectionPoint(0.01, None, None), DetectionPoint(0.05, 0.25, Rate(3, 7)))


def written(value: Any) -> Any:
    return json.loads(json.dumps(_plain(value)))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Target, TARGET), (tuple[DetectionPoint, ...], POINTS), (tuple[Unavailable, ...], ()), (Rate, Rate(0, 0))],
    ids=["nulls and numbers", "rates in a tuple", "empty", "no trials"],
)
def test_what_was_written_is_read_back_equal(kind: Any, value: Any) -> None:
    assert from_plain(kind, written(value)) == value


def test_numbers_of_numpy_are_written_as_plain_ones() -> None:
    values = (np.bool_(True), np.int64(3), np.float32(0.5), np.array([1, 2]))
    assert [json.dumps(written(value)) for value in values] == ["true", "3", "0.5", "[1, 2]"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": "0.5"}, "threshold is '0.5'; it must be a number"),
        ({"threshold": True}, "threshold is 'True'; it must be a number"),
        ({"name": None}, "name is 'None'; it must be str"),
        ({"checkpoint_sha256": 3}, "checkpoint_sha256 is '3'; it must be str"),
    ],
)
def test_another_type_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(Target, {**written(TARGET), **change})


def test_counts_that_cannot_be_and_missing_keys_are_refused() -> None:
    plain = written(POINTS[1])
    more = copy.deepcopy(plain)
    more["detected"]["successes"] = 8
    with pytest.raises(InputError, match="8 successes in 7"):
        from_plain(DetectionPoint, more)
    del plain["detected"]
    with pytest.raises(ValueError, match="a table with 'detected'"):
        from_plain(DetectionPoint, plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("9" * 400, "must be an integer of at most 64 bits"),
        ('{"a": {"b": [1, 9223372036854775808]}}', "a.b must be an integer of at most 64 bits"),
        ("9" * 5000, "is not JSON"),
        ('{"a": NaN}', "a must be finite"),
        ("[-Infinity]", "must be finite"),
        ("[1e999]", "must be finite"),
        ("[" * 66 + "]" * 66, "nested more than 64 deep"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": 1, "a": 2}', "the same key twice"),
        ('{"a": "' + "x" * 70_000 + '"}', "a has more than 65536 characters"),
        ("[" + "[]," * 1_000_000 + "1]", "more than 1000000 tables"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"", "is not JSON"),
    ],
)
def test_json_beyond_the_limits_is_refused_where_it_is_parsed(content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"a.json: .*{message}"):
        parse_json(content, "a.json")
    assert parse_json("[" * 64 + "]" * 64, "a.json")
    assert parse_json('{"a": [9223372036854775807, -9223372036854775808, 1e308, "\\u001b"]}', "a.json")
