"""The JSON Schema says what the reader accepts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from toolkit.errors import InputError
from toolkit.files import bundled
from toolkit.profiles.profile import read_profile, shipped_profiles, write_new_profile
from toolkit.profiles.schema import profile_schema


def valid(text: str) -> bool:
    try:
        jsonschema.Draft202012Validator(profile_schema()).validate(tomllib.loads(text))
    except jsonschema.ValidationError:
        return False
    return True


def test_the_file_is_what_is_generated() -> None:
    committed = json.loads((bundled("profiles") / "profile.schema.json").read_text(encoding="utf-8"))
    assert committed == profile_schema(), "run `sixpixels profiles schema > profiles/profile.schema.json`"
    jsonschema.Draft202012Validator.check_schema(committed)


def test_every_shipped_profile_and_a_new_one_are_valid(tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    write_new_profile(new, ["mean", "jpeg", "random-zoom"])
    for path in (*shipped_profiles().values(), new):
        assert valid(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "steps",
    [
        '[[defense]]\nname = "men"',
        '[[defense]]\nname = "mean"\nsiz = 3',
        '[[defense]]\nname = "mean"\nsize = "3"',
        '[[defense]]\nname = "choice"',
        '[[defense]]\nname = "choice"\noptions = [{ name = "mean", sise = 3 }, { name = "median" }]',
        "extra = 1",
        "[ensemble]\ndraws = 4.5\n" + '[[defense]]\nname = "noise"',
        "[ensemble]\ndraws = 1\n" + '[[defense]]\nname = "noise"',
        "[detector]\nthreshold = 0.1\nfalse_alarm = 0.05",
        '[detector]\nthreshold = 0\nfalse_alarm = 0.05\n[[detector.squeezer]]\nname = "mean"',
        '[detector]\nthreshold = 1\nfalse_alarm = 0.05\nsharp = 1\n[[detector.squeezer]]\nname = "mean"',
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(tmp_path: Path, steps: str) -> None:
    text = f'schema = 1\nname = "x"\n{steps}\n'
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(InputError):
        read_profile(path)
    assert not valid(text)
