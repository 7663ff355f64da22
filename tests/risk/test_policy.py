"""A policy with a mistake must be refused, not read as something else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest

from toolkit.errors import InputError, UsageError
from toolkit.risk.policy import find_policy, policy_schema, read_policy, shipped_policies
from toolkit.risk.waivers import read_waivers

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
        ('finding = "a"\nowner = " "\nreason = "r"\nexpires = 2030-01-01', "owner is empty"),
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
