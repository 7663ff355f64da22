"""A policy with a mistake must be refused, not read as something else."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.risk.policies import WHOLE, written
from toolkit.audit.options import AuditOptions
from toolkit.errors import InputError, UsageError
from toolkit.risk.policy import (
    ACCESS,
    LEAST_IMPACT,
    Policy,
    Required,
    Strength,
    at_budget,
    find_policy,
    policy_schema,
    read_policy,
    shipped_policies,
)
from toolkit.risk.waivers import Waiver, read_waivers
from toolkit.statistics.intervals import Rate

TEXT = shipped_policies()["access-control"].read_text()


def test_shipped_policies_are_valid_and_differ_in_what_they_fear() -> None:
    for path in shipped_policies().values():
        jsonschema.validate(tomllib.loads(path.read_text()), policy_schema())
    access, watch = find_policy("access-control"), find_policy("watchlist")
    assert access.goals["impersonation"].impact > access.goals["dodging"].impact
    assert watch.goals["dodging"].impact > watch.goals["impersonation"].impact
    assert access.max_fmr < watch.max_fmr
    assert watch.max_fnmr < access.max_fnmr
    with pytest.raises(UsageError, match="access-control"):
        find_policy("acces-control")


def test_shipped_policies_take_nothing_for_granted() -> None:
    """Every goal asks for attackers who know, who ask and who do neither, over pairs that can show the bound."""
    for name in shipped_policies():
        policy = find_policy(name)
        assert set(policy.knowledge) == {"zero", "partial", "perfect", "query"}
        assert not policy.generated_faces
        for required in policy.goals.values():
            assert set(required.evidence) >= {"minimal", "budgeted", "query", "transfer"}
            assert Rate(0, required.pairs).upper_bound() <= required.max_asr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_fmr", "max_frm", "max_fmr is missing"),
        ('"query", "transfer"]', '"quarry", "transfer"]', "goals.dodging.evidence must be a list of minimal, "),
        ('"minimal", "budgeted", "query", "transfer"', "", "goals.dodging.evidence must be a list of minimal, "),
        ('"perfect", "query"]', '"perfekt", "query"]', "gate.knowledge must be a list of zero, "),
        ("perfect = 0.8", "perfect = 6", "access.perfect must be from 0.666667 to 1, not 6"),
        ("queries_more = 0.7", "queries_more = 0.66", "access.queries_more must be from 0.666667 to 1, not 0.66"),
        ("perfect = 0.8", "perfect = 0.95", "access.perfect must not weigh more than partial"),
        ("queries_10000 = 0.8", "queries_10000 = 0.91", "access.queries_10000 must not weigh more than queries_1000"),
        ("impact = 9", "impact = 10", "goals.impersonation.impact must be from 3 to 9, not 10"),
        ("impact = 4", "impact = 2.9", "goals.dodging.impact must be from 3 to 9, not 2.9"),
        ("value = 2.15", "value = nan", "value must be finite"),
        ("pairs = 60", "pairs = 60.5", "goals.dodging.pairs must be of type int"),
        ("generated_faces = false", "generated_faces = 0", "generated_faces must be of type bool"),
        ("profiles = []", "profiles = [3]", "profiles must be a list of names"),
        ("max_fmr = 0.05", "max_fmr = 0.05\nmax_frm = 0.1", "max_frm is not a known key"),
        ("[goals.group]", "[goals.grupp]", "goals.grupp is not a known key"),
        ("days = 180", "days = 9999", "waivers.days must be from 1 to 3660, not 9999"),
        ("schema = 2", "schema = 1", "schema is 1"),
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


def changed(old: str, new: str) -> str:
    assert WHOLE.count(old) == 1
    return WHOLE.replace(old, new)


def test_a_policy_is_what_its_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    policy = read_policy(path)
    assert policy == Policy(
        name="door",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        use_case="a door",
        norm="linf",
        budget=0.03,
        goals={
            "dodging": Required(3.5, 0.11, 11, 12, ("minimal", "worn")),
            "impersonation": Required(8, 0.22, 21, 22, ("query",)),
            "group": Required(5, 0.33, 31, 32, ("noise",)),
        },
        access={
            "zero": 0.98,
            "partial": 0.95,
            "perfect": 0.85,
            "queries_1000": 0.9,
            "queries_10000": 0.8,
            "queries_more": 0.7,
        },
        strength=Strength(steps=41, restarts=42, queries=43, draws=44, fill=0.75),
        knowledge=("zero", "query"),
        tries=7,
        attacks=("fgsm", "pgd"),
        profiles=("mean3",),
        max_fnmr=0.25,
        max_fmr=0.125,
        generated_faces=True,
        waiver_days=45,
        waivers=4,
        regression=0.2,
        power=0.6,
    )
    assert policy.within == "Linf <= 0.03"
    assert policy.required("group") == policy.goals["group"]


def without(text: str, key: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    assert len(lines) == text.count("\n") - 1
    return "\n".join(lines)


def test_what_a_policy_does_not_ask_for_is_not_asked_for(tmp_path: Path) -> None:
    text = WHOLE
    for key in ("tries", "attacks", "profiles", "generated_faces"):
        text = without(text, key) + "\n"
    jsonschema.validate(tomllib.loads(text), policy_schema())
    policy = read_policy(written(tmp_path, text))
    assert (policy.attacks, policy.profiles, policy.generated_faces) == ((), (), False)
    assert policy.tries == 10, "a random profile meets the same probe as often as an audit presents it"


def test_a_goal_that_does_not_count_has_the_smallest_harm(tmp_path: Path) -> None:
    start, end = WHOLE.index("[goals.group]"), WHOLE.index("[access]")
    policy = read_policy(written(tmp_path, WHOLE[:start] + WHOLE[end:]))
    assert list(policy.goals) == ["dodging", "impersonation"]
    assert policy.required("group") == Required(LEAST_IMPACT, 0.1, 1, 1, ())


NEEDED = [line.split(" = ")[0] for line in WHOLE.splitlines() if " = " in line]


@pytest.mark.parametrize("key", sorted(set(NEEDED) - {"tries", "attacks", "profiles", "generated_faces"}))
def test_everything_else_must_be_said(tmp_path: Path, key: str) -> None:
    at = WHOLE.index(f"\n{key} =")
    text = WHOLE[:at] + WHOLE[WHOLE.index("\n", at + 1) :]
    assert not jsonschema.Draft202012Validator(policy_schema()).is_valid(tomllib.loads(text))
    with pytest.raises(InputError, match=f"{key} is missing"):
        read_policy(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "valid"),
    [
        ("schema = 2", "schema = 1", False),
        ('name = "door"', "name = 3", False),
        ('use_case = "a door"', "use_case = 3", False),
        ('norm = "linf"', 'norm = "l2"', True),
        ('norm = "linf"', 'norm = "rms"', True),
        ('norm = "linf"', 'norm = "l1"', False),
        ("value = 0.03", "value = 1e-6", True),
        ("value = 0.03", "value = 9e-7", False),
        ("value = 0.03", "value = 1e6", True),
        ("value = 0.03", "value = 1000000.5", False),
        ("value = 0.03", 'value = "0.03"', False),
        ("value = 0.03", "value = 0.03\nunit = 1", False),
        ("impact = 3.5", "impact = 3", True),
        ("impact = 3.5", "impact = 9", True),
        ("impact = 3.5", "impact = 2.9", False),
        ("impact = 3.5", "impact = 9.1", False),
        ("impact = 3.5", 'impact = "4"', False),
        ("max_asr = 0.11", "max_asr = 1", True),
        ("max_asr = 0.11", "max_asr = 1.1", False),
        ("max_asr = 0.11", "max_asr = 1e-6", True),
        ("max_asr = 0.11", "max_asr = 9e-7", False),
        ("max_asr = 0.11", "max_asr = true", False),
        ("pairs = 11", "pairs = 1", True),
        ("pairs = 11", "pairs = 0", False),
        ("pairs = 11", "pairs = 1000000000", True),
        ("pairs = 11", "pairs = 1000000001", False),
        ("pairs = 11", "pairs = 1.5", False),
        ("people = 12", "people = 0", False),
        ("people = 12", "people = true", False),
        ('evidence = ["query"]', "evidence = []", False),
        ('evidence = ["query"]', 'evidence = ["queries"]', False),
        ('evidence = ["query"]', 'evidence = "query"', False),
        ('evidence = ["query"]',
         'evidence = ["minimal", "budgeted", "query", "noise", "transfer", "worn"]', True),
        ("[goals.group]", "[goals.nobody]", False),
        ("[goals.group]", "[goals.group]\nseverity = 3", False),
        (WHOLE[WHOLE.index("[goals.group]") : WHOLE.index("[access]")], "", True),
        (WHOLE[WHOLE.index("[goals.impersonation]") : WHOLE.index("[access]")], "", True),
        (WHOLE[WHOLE.index("[goals.dodging]") : WHOLE.index("[access]")], "", False),
        (WHOLE[WHOLE.index("[goals.dodging]") : WHOLE.index("[access]")], "[goals]\n", False),
        ("zero = 0.98", "zero = 1", True),
        ("zero = 0.98", "zero = 1.1", False),
        ("queries_more = 0.7", "queries_more = 0.6666666666666666", True),
        ("queries_more = 0.7", "queries_more = 0.66", False),
        ("queries_more = 0.7", "queries_more = 0", False),
        ("queries_more = 0.7", "queries_more = 0.7\nqueries_most = 0.7", False),
        ("steps = 41", "steps = 1", True),
        ("steps = 41", "steps = 0", False),
        ("restarts = 42", "restarts = 0", False),
        ("queries = 43", "queries = 0", False),
        ("draws = 44", "draws = 0", False),
        ("draws = 44", "draws = 44.5", False),
        ("fill = 0.75", "fill = 0.5", True),
        ("fill = 0.75", "fill = 1", True),
        ("fill = 0.75", "fill = 0.49", False),
        ("fill = 0.75", "fill = 1.01", False),
        ("fill = 0.75", "fill = 0.75\nfull = 1", False),
        ('knowledge = ["zero", "query"]', 'knowledge = ["zero", "partial", "perfect", "query"]', True),
        ('knowledge = ["zero", "query"]', "knowledge = []", False),
        ('knowledge = ["zero", "query"]', 'knowledge = ["all"]', False),
        ('attacks = ["fgsm", "pgd"]', "attacks = []", True),
        ('attacks = ["fgsm", "pgd"]', 'attacks = ["a"]', True),
        ('attacks = ["fgsm", "pgd"]', 'attacks = [""]', False),
        ('attacks = ["fgsm", "pgd"]', "attacks = [1]", False),
        ('attacks = ["fgsm", "pgd"]', 'attacks = "fgsm"', False),
        ("tries = 7", "tries = 1", True),
        ("tries = 7", "tries = 10", True),
        ("tries = 7", "tries = 0", False),
        ("tries = 7", "tries = 11", False),
        ("max_fnmr = 0.25", "max_fnmr = 0", True),
        ("max_fnmr = 0.25", "max_fnmr = 1", True),
        ("max_fnmr = 0.25", "max_fnmr = 1.5", False),
        ("max_fnmr = 0.25", "max_fnmr = -0.1", False),
        ("max_fmr = 0.125", "max_fmr = 0", True),
        ("max_fmr = 0.125", "max_fmr = 1", True),
        ("max_fmr = 0.125", "max_fmr = 1.5", False),
        ("max_fmr = 0.125", "max_fmr = 0.125\nmax_far = 0.1", False),
        ("generated_faces = true", "generated_faces = 1", False),
        ("days = 45", "days = 3660", True),
        ("days = 45", "days = 3661", False),
        ("days = 45", "days = 0", False),
        ("most = 4", "most = 0", True),
        ("most = 4", "most = 1000", True),
        ("most = 4", "most = 1001", False),
        ("most = 4", "most = -1", False),
        ("smallest = 0.2", "smallest = 1", True),
        ("smallest = 0.2", "smallest = 0", False),
        ("smallest = 0.2", "smallest = 1.1", False),
        ("power = 0.6", "power = 0.5", True),
        ("power = 0.6", "power = 0.999", True),
        ("power = 0.6", "power = 0.49", False),
        ("power = 0.6", "power = 1", False),
        ("[gate]", "[other]\n[gate]", False),
    ],
)  # fmt: skip
def test_the_schema_and_the_reader_agree(tmp_path: Path, old: str, new: str, valid: bool) -> None:
    path = written(tmp_path, changed(old, new))
    found = jsonschema.Draft202012Validator(policy_schema()).is_valid(tomllib.loads(path.read_text()))
    assert found == valid
    if valid:
        read_policy(path)
    else:
        with pytest.raises(InputError):
            read_policy(path)


@pytest.mark.parametrize(
    ("easier", "harder"),
    [("zero", "partial"), ("partial", "perfect"), ("queries_1000", "queries_10000"), ("queries_10000", "queries_more")],
)
def test_a_harder_access_never_weighs_more(tmp_path: Path, easier: str, harder: str) -> None:
    """This is for the reader alone: JSON Schema cannot compare two values."""
    flat = re.sub(r"(?m)^(zero|partial|perfect|queries_1\d+|queries_more) = .*", r"\1 = 0.8", WHOLE)
    assert set(read_policy(written(tmp_path, flat)).access.values()) == {0.8}
    with pytest.raises(InputError, match=f"access.{harder} must not weigh more than {easier}"):
        read_policy(written(tmp_path, flat.replace(f"{harder} = 0.8", f"{harder} = 0.8000001")))


def test_the_schema_has_no_word_that_is_not_of_json_schema() -> None:
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    limits = {"type", "const", "enum", "minimum", "maximum", "items", "minItems", "minLength"}
    objects = {"$schema", "title", "description", "type", "properties", "minProperties", "required"}

    def check(part: dict[str, Any]) -> None:
        assert set(part) <= (objects | {"additionalProperties"} if "properties" in part else limits | {"description"})
        for inner in part.get("properties", {}).values():
            check(inner)

    check(schema)


def test_the_schema_says_what_every_key_means() -> None:
    """A weight of the access has the name of the access, and needs no more words."""

    def check(part: dict[str, Any]) -> None:
        for key, inner in part.get("properties", {}).items():
            words = inner.get("description", "")
            assert words == "" if key in (*ACCESS, "value") else words.endswith(".") and " " in words, key
            check(inner)

    check(policy_schema())


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


def test_attacks_spend_the_policys_budget_unless_another_is_given() -> None:
    policy, options = find_policy("access-control"), AuditOptions(limit=7)
    assert at_budget(options, policy) == replace(options, budget=policy.budget)
    given = replace(options, budget=1.0)
    assert at_budget(given, policy) is given
    assert at_budget(options, replace(policy, norm="linf")) is options, "the suite's budgets are RMS"
