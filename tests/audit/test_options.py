"""Where an audit's options come from: command line before environment before file before default."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest

from toolkit.attacks.settings import apply_settings, is_file
from toolkit.audit.options import AuditOptions, declared_options, read_config, resolve, write_config
from toolkit.audit.schema import config_schema
from toolkit.audit.suites import BUDGET, balls, choose_attacks
from toolkit.errors import InputError, UsageError
from toolkit.registry import discover


def write(folder: Path, text: str) -> Path:
    path = folder / "audit.toml"
    path.write_text(f"schema = 1\n{text}")
    return path


def test_what_is_nearer_to_the_user_goes_first(tmp_path: Path) -> None:
    config = write(tmp_path, "seed = 1\nthreads = 1\nlimit = 10")
    found = resolve({"seed": 3}, config, {"SIXPIXELS_SEED": "2", "SIXPIXELS_THREADS": "2"})
    assert (found.options.seed, found.options.threads, found.options.limit, found.options.suite) == (
        3,
        2,
        10,
        "standard",
    )
    sources = [found.sources[name] for name in ("seed", "threads", "limit", "suite")]
    assert sources == ["command line", "environment (SIXPIXELS_THREADS)", str(config), "default"]
    assert resolve({}, None, {}).options == AuditOptions()
    assert resolve({"seed": 0}, config, {}).options.seed == 0, "a zero on the command line is a value"
    assert resolve({}, config, {"SIXPIXELS_SEED": ""}).options.seed == 1, "an empty variable is none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile = ['mean3']", r"audit.toml: profile is not a known key; did you mean 'profiles'\?"),
        ("seed = -1", "audit.toml: seed must be at least 0, not -1"),
        ("limit = 0", "audit.toml: limit must be at least 1"),
        ("seed = true", "audit.toml: seed must be a whole number, not True"),
        ("seed = 1.5", "audit.toml: seed must be a whole number"),
        ("folds = ['x']", "audit.toml: folds must be a whole number, not 'x'"),
        ("profiles = 3", "audit.toml: profiles must be a list"),
        ("model = ''", "audit.toml: model must be text, not ''"),
        ("set = { pgd = { epsilon = [1] } }", r"audit.toml: set pgd.epsilon must be a number"),
        ("schema = 2", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_config(write(tmp_path, text))


def test_mistakes_on_the_command_line_and_in_the_environment_are_named() -> None:
    with pytest.raises(UsageError, match=r"^--seed: must be at least 0, not -1"):
        resolve({"seed": -1}, None, {})
    with pytest.raises(UsageError, match=r"^SIXPIXELS_FOLDS: must be a whole number, not 'seven'"):
        resolve({}, None, {"SIXPIXELS_FOLDS": "7,seven"})
    with pytest.raises(UsageError, match=r"SIXPIXELS_ATACKS is not an audit option; did you mean SIXPIXELS_ATTACKS"):
        resolve({}, None, {"SIXPIXELS_ATACKS": "pgd"})
    assert resolve({}, None, {"SIXPIXELS_CACHE": "/x", "SIXPIXELS_BADGE_COLOR": "red"}).options == AuditOptions()


def test_paths_in_a_file_are_relative_to_it_and_names_are_not(tmp_path: Path) -> None:
    text = (
        'model = "models/x.onnx"\npairs = "../faces"\nrun = "/runs/one"\nprofiles = ["mean3", "mine.toml"]\n'
        '[set]\npgd.epsilon = "8/255"\n'
    )
    values = read_config(write(tmp_path, text))
    assert values["model"] == str(tmp_path / "models/x.onnx")
    assert values["pairs"] == tmp_path / "../faces"
    assert values["run"] == Path("/runs/one")
    assert values["profiles"] == ("mean3", str(tmp_path / "mine.toml"))
    assert values["settings"] == ("pgd.epsilon=8/255",)
    attacks = discover("attack").values()
    for file in [f"{a.name}.{f.name}" for a in attacks for f in dataclasses.fields(a) if is_file(a, f.name)]:
        assert read_config(write(tmp_path, f'[set]\n{file} = "a.png"'))["settings"] == (f"{file}={tmp_path / 'a.png'}",)
    assert read_config(write(tmp_path, 'model = "facenet-mini"'))["model"] == "facenet-mini"


@pytest.mark.parametrize(
    "text",
    [
        'set = ["pgd.epsilon=4/255", "pgd.steps=7", "simba.basis=pixel"]',
        '[set]\npgd.epsilon = "4/255"\npgd.steps = 7\nsimba.basis = "pixel"',
        '[set.pgd]\nepsilon = "4/255"\nsteps = 7\n[set.simba]\nbasis = "pixel"',
        '[set]\n"pgd.epsilon" = "4/255"\n"pgd.steps" = 7\n"simba.basis" = "pixel"',
    ],
)
def test_settings_may_be_a_list_or_a_table(tmp_path: Path, text: str) -> None:
    settings = read_config(write(tmp_path, text))["settings"]
    pgd, simba = apply_settings(choose_attacks("standard", ["pgd", "simba"], [], balls(BUDGET, 192)), settings)
    assert (pgd.epsilon, pgd.steps, simba.basis) == (4 / 255, 7, "pixel")  # type: ignore[attr-defined]


def test_what_is_saved_is_read_back_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = AuditOptions(
        model="x.onnx", pairs=Path("faces"), folds=(7, 8), limit=4, profiles=("none", "p/mine.toml"), run=Path("/run"),
        attacks=("pgd", "glasses"), settings=("pgd.epsilon=8/255",), knowledge=("perfect",),
    )  # fmt: skip
    path = Path("../there/audit.toml")
    write_config(path, options)
    monkeypatch.chdir(tmp_path)
    found = resolve({}, Path("there/audit.toml"), {}).options
    for name in ("model", "pairs"):
        wanted = tmp_path / "here" / str(getattr(options, name))
        assert Path(os.path.normpath(tmp_path / str(getattr(found, name)))) == wanted
    assert Path(os.path.normpath(found.profiles[1])) == Path("here/p/mine.toml")
    same = ("folds", "limit", "run", "attacks", "settings", "knowledge", "seed")
    assert [getattr(found, name) for name in same] == [getattr(options, name) for name in same]
    with pytest.raises(UsageError, match="does not exist yet"):
        write_config(Path("there/audit.toml"), options)


def test_the_schema_accepts_what_is_written_and_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema).validate
    path = tmp_path / "audit.toml"
    write_config(path, AuditOptions(settings=("pgd.epsilon=8/255",), folds=(1,), run=Path("r")))
    check(tomllib.loads(path.read_text()))
    check(tomllib.loads('schema = 1\nprofiles = "none,mean3"\n[set]\npgd.epsilon = "8/255"\n[set.square]\nbudget = 9'))
    for wrong in ("seed = -1", "profile = []", "set = { pgd = { epsilon = [1] } }", "seed = true", "model = ''"):
        with pytest.raises(jsonschema.ValidationError):
            check(tomllib.loads(f"schema = 1\n{wrong}"))
    assert set(schema["properties"]) == {"schema"} | {o.key for o in declared_options()}


def test_every_field_is_declared_with_a_help_and_a_default_of_its_own_type() -> None:
    options = declared_options()
    assert [o.name for o in options] == [f.name for f in dataclasses.fields(AuditOptions)]
    for o in options:
        assert o.help.endswith("."), o.name
        values = o.default if o.many and o.default is not None else [o.default]
        assert all(value is None or type(value) is o.kind for value in values), o.name
