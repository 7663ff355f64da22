"""The JSON Schema says what the reader accepts."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from toolkit.errors import InputError
from toolkit.files import bundled
from toolkit.profiles import profile
from toolkit.profiles.profile import read_profile, shipped_profiles, write_new_profile
from toolkit.profiles.schema import profile_schema
from toolkit.registry import discover

NESTED = """[[defense]]
name = "choice"
options = [{ name = "mean" }, { name = "choice", options = [{ name = "mean" }, { name = "median" }] }]
"""


def valid(text: str) -> bool:
    try:
        jsonschema.Draft202012Validator(profile_schema()).validate(tomllib.loads(text))
    except jsonschema.ValidationError:
        return False
    return True


def test_the_schema_has_the_keys_that_the_reader_knows() -> None:
    assert set(profile_schema()["properties"]) == profile._KEYS


@pytest.mark.parametrize(("name", "cls"), discover("defense").items())
def test_every_number_has_a_range_whose_ends_are_accepted_and_nothing_beyond(name: str, cls: type) -> None:
    """Ends that only the schema or only the constructor knew would let one accept what the other refuses."""
    for field in dataclasses.fields(cls):
        if type(field.default) not in (int, float):
            continue
        lowest, highest = field.metadata["lowest"], field.metadata["highest"]
        others = {"random-zoom": {"smallest": {"largest": 2.0}, "largest": {"smallest": 0.5}}}.get(name, {})
        step = f'[[defense]]\nname = "{name}"\n{field.name} = '
        for value, allowed in ((lowest, True), (highest, True), (lowest - 1, False), (highest + 1, False)):
            assert valid(f'schema = 1\nname = "x"\n{step}{value}') is allowed, (field.name, value)
            arguments = {field.name: value, **others.get(field.name, {})}
            if allowed:
                cls(**arguments)
            else:
                with pytest.raises(ValueError, match=f"{field.name} must be from"):
                    cls(**arguments)


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
        '[[defense]]\nname = "mean"\nsize = 1',
        '[[defense]]\nname = "mean"\nsize = 32',
        '[[defense]]\nname = "median"\nsize = 4',
        '[[defense]]\nname = "wiener"\nsize = 30',
        '[[defense]]\nname = "wiener"\nnoise = 0',
        '[[defense]]\nname = "noise"\nsigma = 1.1',
        '[[defense]]\nname = "noise"\nsigma = inf',
        '[[defense]]\nname = "jpeg"\nsubsampling = 1',
        '[[defense]]\nname = "mean"\nsize = true',
        '[[defense]]\nname = "denoiser"\nmodel = "../unet"',
        "[[defense]]\nsize = 3",
        '[defense]\nname = "mean"',
        '[[defense]]\nname = "choice"\noptions = [{ name = "mean" }]',
        '[[defense]]\nname = "choice"\noptions = [' + '{ name = "mean" }, ' * 9 + "]",
        # A choice in a choice is the only way in which a profile could contain itself.
        NESTED,
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


@pytest.mark.parametrize("name", ["defense", "option", "detector"])
def test_a_plugin_may_call_its_defense_as_it_likes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    named = dataclasses.make_dataclass("Named", [("share", float, 0.5)], namespace={"name": name, "__doc__": "One."})
    known = {**discover("defense"), name: named}
    monkeypatch.setattr("toolkit.profiles.schema.discover", lambda kind: known)
    text = f'schema = 1\nname = "x"\n[[defense]]\nname = "{name}"\nshare = 0.25\n[[defense]]\nname = "mean"\n'
    assert valid(text)
    assert valid(text + f'[[defense]]\nname = "choice"\noptions = [{{ name = "{name}" }}, {{ name = "mean" }}]\n')
    assert not valid(text.replace("share", "size"))
