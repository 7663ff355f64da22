"""A policy with a mistake must be refused, not read as something else."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from toolkit.errors import InputError, UsageError
from toolkit.risk.policy import Policy, find_policy, policy_schema, read_policy, shipped_policies
from toolkit.risk.waivers import Waiver, read_waivers

TEXT = shipped_policies()["access-control"].read_text()


def test_shipped_policies_are_valid_and_differ_in_what_they_fear() -> None:
    for path in shipped_policies().values():
        jsonschema.validate(tomllib.loads(path.read_text()), policy_schema())
    access, watch = find_policy("access-control"), find_policy("watchlist")
    assert access.impact["impersonation"] > access.impact["dodging"]
    assert watch.impact["dodging"] > watch.impact["impersonation"]
    with pytest.raises(UsageError, match="access-control"):
        find_policy("acces-control")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fail_at", "fail_att", "fail_at is missing"),
        ('"high" ', '"hgh" ', "fail_at must be one of"),
        ("perfect = 0.6", "perfect = 6", "access.perfect must be from 0 to 1"),
        ("impersonation = 9", "impersonation = 10", "impact.impersonation must be from 0 to 9"),
        ("value = 2.15", "value = nan", "value must be finite"),
        ("adaptive = true", "adaptive = 1", "adaptive must be of type bool"),
        ("profiles = []", "profiles = [3]", "profiles must be a list of names"),
        ("max_fmr = 1.0", "max_fmr = 1.0\nmax_frm = 0.1", "max_frm is not a known key"),
        ("schema = 1", "schema = 2", "schema is 2"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_policy(path)
    assert find_policy(str(shipped_policies()["watchlist"])).name == "watchlist"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('finding = "a"\nowner = "me"\nreason = "r"', "expires is missing"),
        ('finding = "a"\nowner = " "\nreason = "r"\nexpires = 2030-01-01', "owner must not be empty"),
        ('finding = "a"\nowner = "me"\nreason = "r"\nexpires = "2030-01-01"', "expires must be of type date"),
        ('finding = "a"\nowner = "me"\nreason = "r"\nexpires = 2030-01-01T10:00:00', "without a time"),
        ('finding = "a"\nowner = "me"\nreason = "r"\nexpires = 2030-01-01\nforever = true', "forever is not a known"),
    ],
)
def test_a_waiver_needs_all_of_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text(f"schema = 1\n[[waiver]]\n{text}\n")
    with pytest.raises(InputError, match=message):
        read_waivers(path)


def test_one_finding_is_not_waived_twice(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    one = '[[waiver]]\nfinding = "a"\nowner = "me"\nreason = "r"\nexpires = 2030-01-01\n'
    path.write_text("schema = 1\n" + one + one)
    with pytest.raises(InputError, match="waived twice"):
        read_waivers(path)


WHOLE = """
schema = 1
name = "door"
use_case = "a door"
[budget]
norm = "linf"
value = 0.03
[impact]
dodging = 1
impersonation = 2
group = 3
[access]
zero = 0.1
partial = 0.2
perfect = 0.3
queries_1000 = 0.4
queries_10000 = 0.5
queries_more = 0.6
[gate]
fail_at = "medium"
provable_asr = 0.15
adaptive = false
attacks = ["fgsm", "pgd"]
profiles = ["mean3"]
max_fnmr = 0.25
max_fmr = 0.125
"""


def changed(old: str, new: str) -> str:
    assert WHOLE.count(old) == 1
    return WHOLE.replace(old, new)


def written(folder: Path, text: str) -> Path:
    path = folder / "told.toml"
    path.write_text(text)
    return path


def test_a_policy_is_what_its_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    assert read_policy(path) == Policy(
        name="door",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        use_case="a door",
        norm="linf",
        budget=0.03,
        impact={"dodging": 1, "impersonation": 2, "group": 3},
        access={
            "zero": 0.1,
            "partial": 0.2,
            "perfect": 0.3,
            "queries_1000": 0.4,
            "queries_10000": 0.5,
            "queries_more": 0.6,
        },
        fail_at="medium",
        provable_asr=0.15,
        adaptive=False,
        attacks=("fgsm", "pgd"),
        profiles=("mean3",),
        max_fnmr=0.25,
        max_fmr=0.125,
    )


def test_what_a_policy_does_not_ask_for_is_not_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE.partition("attacks")[0])
    jsonschema.validate(tomllib.loads(path.read_text()), policy_schema())
    policy = read_policy(path)
    assert (policy.attacks, policy.profiles, policy.max_fnmr, policy.max_fmr) == ((), (), 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "valid"),
    [
        ("schema = 1", "schema = 2", False),
        ('name = "door"', "name = 3", False),
        ('use_case = "a door"', "use_case = 3", False),
        ('use_case = "a door"\n', "", False),
        ('norm = "linf"', 'norm = "l2"', True),
        ('norm = "linf"', 'norm = "rms"', True),
        ('norm = "linf"', 'norm = "l1"', False),
        ("value = 0.03", "value = 1e-6", True),
        ("value = 0.03", "value = 9e-7", False),
        ("value = 0.03", "value = 1e6", True),
        ("value = 0.03", "value = 1000000.5", False),
        ("value = 0.03", 'value = "0.03"', False),
        ("value = 0.03", "value = 0.03\nunit = 1", False),
        ("dodging = 1", "dodging = 0", True),
        ("dodging = 1", "dodging = 9", True),
        ("dodging = 1", "dodging = -0.1", False),
        ("dodging = 1", "dodging = 9.1", False),
        ("dodging = 1", 'dodging = "1"', False),
        ("group = 3", "", False),
        ("zero = 0.1", "zero = 0", True),
        ("zero = 0.1", "zero = 1", True),
        ("zero = 0.1", "zero = 1.1", False),
        ("queries_more = 0.6", "", False),
        ("queries_more = 0.6", "queries_more = 0.6\nqueries_most = 0.5", False),
        ('fail_at = "medium"', 'fail_at = "unknown"', True),
        ('fail_at = "medium"', 'fail_at = "worse"', False),
        ("provable_asr = 0.15", "provable_asr = 1", True),
        ("provable_asr = 0.15", "provable_asr = 1.1", False),
        ("provable_asr = 0.15", "provable_asr = 1e-6", True),
        ("provable_asr = 0.15", "provable_asr = 9e-7", False),
        ("provable_asr = 0.15", "provable_asr = true", False),
        ("adaptive = false", 'adaptive = "no"', False),
        ('attacks = ["fgsm", "pgd"]', "attacks = []", True),
        ('attacks = ["fgsm", "pgd"]', 'attacks = ["a"]', True),
        ('attacks = ["fgsm", "pgd"]', 'attacks = [""]', False),
        ('attacks = ["fgsm", "pgd"]', "attacks = [1]", False),
        ('attacks = ["fgsm", "pgd"]', 'attacks = "fgsm"', False),
        ("max_fnmr = 0.25", "max_fnmr = 0", True),
        ("max_fnmr = 0.25", "max_fnmr = 1", True),
        ("max_fnmr = 0.25", "max_fnmr = 1.5", False),
        ("max_fnmr = 0.25", "max_fnmr = -0.1", False),
        ("max_fmr = 0.125", "max_fmr = 0", True),
        ("max_fmr = 0.125", "max_fmr = 1", True),
        ("max_fmr = 0.125", "max_fmr = 1.5", False),
        ("max_fmr = 0.125", "max_fmr = 0.125\nmax_far = 0.1", False),
        ("[gate]", "[other]\n[gate]", False),
    ],
)
def test_the_schema_and_the_reader_agree(tmp_path: Path, old: str, new: str, valid: bool) -> None:
    path = written(tmp_path, changed(old, new))
    found = jsonschema.Draft202012Validator(policy_schema()).is_valid(tomllib.loads(path.read_text()))
    assert found == valid
    if valid:
        read_policy(path)
    else:
        with pytest.raises(InputError):
            read_policy(path)


def test_the_schema_has_no_word_that_is_not_of_json_schema() -> None:
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    limits = {"type", "const", "enum", "minimum", "maximum", "items", "minLength"}
    objects = {"$schema", "title", "description", "type", "properties", "required", "additionalProperties"}

    def check(part: dict[str, Any]) -> None:
        assert set(part) <= (objects if "properties" in part else limits | {"description"})
        for inner in part.get("properties", {}).values():
            check(inner)

    check(schema)


def waiver_text(finding: str = "a", owner: str = "me", reason: str = "r") -> str:
    return f'[[waiver]]\nfinding = "{finding}"\nowner = "{owner}"\nreason = "{reason}"\nexpires = 2030-01-01\n'


def test_waivers_are_what_their_file_says(tmp_path: Path) -> None:
    last = dt.date(2030, 1, 1)
    text = "schema = 1\n" + waiver_text(" a ", " me ", " r ") + waiver_text("b", "you", "s")
    assert read_waivers(written(tmp_path, text)) == (Waiver("a", "me", "r", last), Waiver("b", "you", "s", last))
    assert read_waivers(written(tmp_path, "schema = 1\n")) == ()


@pytest.mark.parametrize("empty", ["finding", "owner", "reason"])
def test_an_empty_answer_is_named_with_its_place(tmp_path: Path, empty: str) -> None:
    with pytest.raises(InputError) as found:
        read_waivers(written(tmp_path, "schema = 1\n" + waiver_text(**{empty: " "})))
    for place in ("told", "waiver", empty):
        assert re.search(rf"\b{place}\b", str(found.value)), place


def test_a_waiver_file_holds_waivers_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_waivers(written(tmp_path, "schema = 1\n[other]\n" + waiver_text()))
    with pytest.raises(InputError):
        read_waivers(written(tmp_path, "schema = 2\n" + waiver_text()))
