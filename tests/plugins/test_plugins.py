"""Attacks and defenses of other distributions, installed by pip into a virtual environment of their own."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import jsonschema
import numpy as np
import pytest

from tests.commands import ROOT, refused, sixpixels
from tests.defenses.test_agreement import run_onnx
from tests.models import write_people
from toolkit import registry
from toolkit.attacks.base import Traits
from toolkit.attacks.pgd import ATTACK as PGD
from toolkit.defenses.mean import Mean
from toolkit.errors import InputError, UsageError
from toolkit.profiles.profile import read_profile
from toolkit.report.schemas import report_schema

EXAMPLE = Path(__file__).parent / "example"
PAGE = ROOT / "docs" / "plugins.md"
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
[project.entry-points."sixpixels.attacks"]
{attack} = "{module}:ATTACK"
[tool.hatch.build.targets.wheel]
packages = ["src/{module}"]
"""
FADED = 'schema = 1\nname = "faded"\n[[defense]]\nname = "fade"\nshare = 0.8\n'


def write_distribution(folder: Path, name: str, version: str, attack: str, source: str) -> Path:
    """A distribution with one module, which must define ATTACK."""
    module = name.replace("-", "_")
    package = folder / "src" / module
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        PYPROJECT.format(name=name, version=version, attack=attack, module=module), encoding="utf-8"
    )
    (package / "__init__.py").write_text(source)
    return folder


def write_page(folder: Path) -> Path:
    """The distribution that the page describes."""
    (folder / "src" / "my_plugin").mkdir(parents=True)
    blocks = re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [path for path, _ in blocks] == [
        "pyproject.toml", "src/my_plugin/attack.py", "src/my_plugin/defense.py"
    ]  # fmt: skip
    for path, text in blocks:
        (folder / path).write_text(text, encoding="utf-8")
    assert dict(blocks)["src/my_plugin/attack.py"].count("\n") < 40
    return folder


@dataclass(frozen=True)
class Site:
    """A virtual environment with plugins: the example, the page's, and one that cannot be imported."""

    python: Path
    packages: Path
    twice: Path

    def run(self, *words: object, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
        """Run a command; modules and distributions in `path` come before those that are installed."""
        environment = os.environ | {"COLUMNS": "200"}
        environment |= {} if path is None else {"PYTHONPATH": str(path)}
        return subprocess.run(
            [self.python, ROOT / "cli.py", *map(str, words)],
            capture_output=True, text=True, check=False, env=environment, cwd=cwd,
        )  # fmt: skip

    def changed(self, folder: Path, file: str, old: str, new: str) -> Path:
        """A copy of the installed example with a change in one of its files, for `path` of `run`."""
        for found in self.packages.glob("sixpixels_example*"):
            shutil.copytree(found, folder / found.name, ignore=shutil.ignore_patterns("__pycache__"))
        (place,) = folder.glob(file)
        text = place.read_text()
        assert old in text
        place.write_text(text.replace(old, new, 1))
        return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("plugins")
    venv, twice = folder / "venv", folder / "twice"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", query], capture_output=True, text=True, check=True)
    packages = Path(found.stdout.strip())
    # What is installed here is there as well, without being installed again.
    here = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(ROOT)])
    (packages / "here.pth").write_text("\n".join(here))
    example = shutil.copytree(EXAMPLE, folder / "example", ignore=shutil.ignore_patterns("__pycache__"))
    broken = write_distribution(folder / "broken", "broken-plugin", "0.1", "broken-one", "import no_such_module\n")
    page = write_page(folder / "page")
    clone = "from toolkit.attacks.pgd import ATTACK\n"
    clone = write_distribution(folder / "clone", "another-pgd", "2.0", "pgd", clone)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python, "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    for what in ((example, broken, page), ("--target", twice, clone)):
        done = subprocess.run([*pip, *offline, *what], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return Site(python, packages, twice)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_people(folder, photos=4)
    (folder / "faded.toml").write_text(FADED)
    return folder


def audit(run: Path, *more: object) -> list[object]:
    """An audit with the stripes; what is given more often counts as given last."""
    return ["audit", "linear.onnx", "--pairs", "pairs.csv", "--limit", 8, "--attacks", "stripes", "--profiles", "none",
            "--provider", "cpu", "--threads", 1, "-q", "--run", run, *more]  # fmt: skip


@pytest.fixture(scope="module")
def first(site: Site, people: Path) -> Path:
    """The run of an audit with the installed example."""
    done = site.run(*audit(people / "first" / "run", "--set", "stripes.period=4"), cwd=people)
    assert done.returncode == 0, done.stderr
    return people / "first" / "run"


def names_of_probes(run: Path) -> set[str]:
    names = {path.name for path in (run / "probes").glob("*.probes")}
    assert names
    return names


def test_lists_say_where_an_entry_comes_from(site: Site) -> None:
    lists = [site.run(what).stdout.splitlines() for what in ("attacks", "defenses")]
    lines = {line.split()[0]: line for line in lists[0] + lists[1]}
    for name in ("stripes", "fade"):
        assert lines[name].endswith(" (from sixpixels-example 1.0)")
    for name in ("gamma", "gray"):
        assert lines[name].endswith(" (from my-plugin 1.0)")
    assert "(from" not in lines["pgd"] + lines["mean"]
    assert "Adds horizontal stripes" in lines["stripes"]
    assert "broken-one" not in lines


def test_an_audit_runs_a_plugins_attack_with_its_settings(site: Site, first: Path, people: Path) -> None:
    report = json.loads((first / "report.json").read_text())
    jsonschema.validate(report, report_schema())
    assert report["attacks"] == [["stripes", [["levels", 20], ["period", 4]]]]
    assert sum(s["asr"]["successes"] for s in report["scenarios"]) > 0
    outside = site.run(*audit(people / "run", "--set", "stripes.period=1"), cwd=people)
    refused(outside, "--set stripes.period=1: period must be from 2 to 64, not 1", 4)


def test_profiles_with_plugins_defenses_are_known_hardened_and_audited(site: Site, people: Path) -> None:
    schema = json.loads(site.run("profiles", "schema").stdout)
    share = schema["$defs"]["fade"]["properties"]["share"]
    assert share == {"type": "number", "default": 0.9, "minimum": 0.1, "maximum": 1.0}
    (gray,) = re.findall(r"```toml\n(schema = 1\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (people / "gray.toml").write_text(gray)
    hardened = site.run("harden", "linear.onnx", "--profile", "gray.toml", "-o", "hardened.onnx", cwd=people)
    assert hardened.returncode == 0, hardened.stderr
    # Gradients go through the TensorFlow form; a sanity check compares it with the deployed ONNX form.
    more = ("--attacks", "deepfool,gamma,stripes", "--set", "gamma.levels=40", "--profiles", "faded.toml,gray.toml",
            "--knowledge", "perfect", "--json")  # fmt: skip
    done = site.run(*audit(people / "defended", *more), cwd=people)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert dict(report["attacks"])["gamma"] == [["levels", 40], ["largest", 4.0]]
    for name in ("faded", "gray"):
        found = [s for s in report["scenarios"] if s["profile"] == name]
        assert {s["attack"] for s in found if s["asr"]["successes"]} >= {"gamma", "deepfool"}
        (parity,) = [c for c in report["checks"] if c["name"] == "parity" and c["about"] == name]
        assert parity["passed"]
        assert "0 of" in parity["detail"], parity


@pytest.mark.parametrize(
    ("where", "module", "name"), [("example", "sixpixels_example.fade", "Fade"), ("page", "my_plugin.defense", "Gray")]
)
def test_the_numpy_form_of_a_plugins_defense_is_its_onnx_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, module: str, name: str
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE / "src" if where == "example" else write_page(tmp_path / "page") / "src")
    defense = getattr(importlib.import_module(module), name)(0.7)
    crops = np.random.default_rng(0).random((2, 9, 7, 3), np.float32)
    expected = defense.numpy(crops)
    assert expected.dtype == np.float32
    assert np.abs(expected - crops).max() > 0.05
    np.testing.assert_allclose(run_onnx(defense, crops), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="share must be from"):
        type(defense)(2.0)


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("*.dist-info/METADATA", "Version: 1.0\n", "Version: 1.1\n", True),
        ("sixpixels_example/pattern.py", "one value", "a value", True),
        ("sixpixels_example/stripes.py", "a bit stronger", "somewhat stronger", True),
        ("sixpixels_example/fade.py", "middle gray", "gray", False),
    ],
    ids=["version", "helper", "attack", "another module"],
)
def test_probes_are_crafted_anew_where_the_plugin_has_changed(
    site: Site, first: Path, people: Path, tmp_path: Path, file: str, old: str, new: str, again: bool
) -> None:
    path = site.changed(tmp_path / "changed", file, old, new)
    done = site.run(*audit(tmp_path / "run", "--set", "stripes.period=4"), cwd=people, path=path)
    assert done.returncode == 0, done.stderr
    assert names_of_probes(tmp_path / "run").isdisjoint(names_of_probes(first)) == again
    assert again or names_of_probes(tmp_path / "run") == names_of_probes(first)


def test_a_changed_defense_makes_the_probes_of_who_knows_it_anew(site: Site, people: Path, tmp_path: Path) -> None:
    (people / "choice.toml").write_text(
        'schema = 1\nname = "choice"\n[[defense]]\nname = "choice"\noptions = [{ name = "fade" }, { name = "mean" }]\n'
    )
    asked = ("--profiles", "faded.toml,choice.toml", "--knowledge", "perfect", "--limit", 4)
    names: dict[str, set[str]] = {}
    for what, path in (
        ("installed", None),
        ("changed", site.changed(tmp_path / "changed", "sixpixels_example/fade.py", "middle gray", "gray")),
    ):
        done = site.run(*audit(tmp_path / what, *asked), cwd=people, path=path)
        assert done.returncode == 0, done.stderr
        names[what] = names_of_probes(tmp_path / what)
    assert len(names["installed"]) == 2
    assert not names["installed"] & names["changed"]


def test_workers_run_a_plugins_attack(site: Site, first: Path, people: Path) -> None:
    run = people / "workers" / "run"
    done = site.run(*audit(run, "--set", "stripes.period=4", "--workers", 2), cwd=people)
    assert done.returncode == 0, done.stderr
    assert names_of_probes(run) == names_of_probes(first)
    assert (run / "report.json").read_bytes() == (first / "report.json").read_bytes()


def test_a_name_that_is_taken_twice_is_an_error_that_names_both(site: Site, people: Path) -> None:
    message = r"sixpixels \S+ and another-pgd 2\.0 both define the attack 'pgd'; uninstall one of them"
    refused(site.run(*audit(people / "run"), cwd=people, path=site.twice), message, 4)


def test_a_plugin_that_cannot_be_imported_takes_nothing_along(site: Site, people: Path) -> None:
    done = site.run("doctor", "--json")
    assert done.returncode == 0, done.stdout
    findings = {f["about"]: f for f in json.loads(done.stdout)["findings"]}
    broken = findings["attack broken-one"]
    assert broken["status"] == "warning"
    assert re.search("broken-plugin 0.1,? cannot be used: broken_plugin:ATTACK cannot be loaded", broken["detail"])
    assert "ModuleNotFoundError: No module named 'no_such_module'" in broken["detail"]
    assert broken["remedy"] == "update or uninstall broken-plugin"
    assert findings["attack stripes"]["status"] == "ok"
    assert findings["attack stripes"]["detail"].endswith("sixpixels-example 1.0")
    asked = site.run(*audit(people / "run", "--attacks", "broken-one"), cwd=people)
    refused(asked, "attack 'broken-one' of broken-plugin 0.1 cannot be used: .*no_such_module", 4)
    assert site.run("evaluate", "linear.onnx", "--pairs", "pairs.csv", "-q", cwd=people).returncode == 0


def test_a_verdict_does_not_depend_on_what_is_installed(site: Site, people: Path, tmp_path: Path) -> None:
    worn = site.changed(tmp_path / "worn", "sixpixels_example/stripes.py", "= Traits()", "= Traits(masked=True)")
    run = tmp_path / "run"
    done = site.run(*audit(run), cwd=people, path=worn)
    assert done.returncode == 0, done.stderr
    with_it, with_another, without = (
        site.run("gate", run, "--json", path=worn),
        site.run("gate", run, "--json"),
        sixpixels("gate", run, "--json"),
    )
    assert "it is worn" in with_it.stdout
    for other in (with_another, without):
        assert (other.returncode, other.stdout, other.stderr) == (with_it.returncode, with_it.stdout, with_it.stderr)
    assert sixpixels("report", run, "--format", "html,markdown,sarif,junit").returncode == 0
    # What needs the probes again says what is missing.
    refused(sixpixels("replay", run, "--on", people / "linear.onnx"), "cannot find what the audit used.*'stripes'")


@dataclass(frozen=True)
class Good:
    name: ClassVar[str] = "good"
    needs: ClassVar[str] = "runtime"
    traits: ClassVar[Traits] = Traits()
    levels: int = 3

    def craft(self, model, task):
        raise NotImplementedError


@dataclass(frozen=True)
class Listed(Good):
    levels: list = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Hinted(Good):
    levels: NoSuchType = 3  # type: ignore[name-defined]  # noqa: F821


@dataclass(frozen=True)
class Bounded(Good):
    needs: ClassVar[str] = "gradient"
    traits: ClassVar[Traits] = Traits(norm="l2", epsilon=1.0)


@dataclass(frozen=True)
class Needy(Good):
    needs: ClassVar[str] = "nothing"


@dataclass(frozen=True)
class Named(Good):
    name: ClassVar[str] = "Not a name"


class Plain:
    name, needs, traits, craft = "good", "runtime", Traits(), None


@dataclass
class Thawed(Plain):
    levels: int = 3


def leave() -> None:
    sys.exit(7)


@dataclass(frozen=True)
class Unset(Mean):
    size: int | None = None  # type: ignore[assignment]


def found(
    monkeypatch: pytest.MonkeyPatch, kind: registry.Kind, entry: object, name: str = "good", load: object = None
) -> registry.Found:
    """What the registry finds where a plugin has this entry."""

    class Point(EntryPoint):
        def load(self):
            return entry if load is None else load()  # type: ignore[operator]

    point = Point(name, "their.module:ENTRY", "group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    return registry.find_entries.__wrapped__(kind)


def test_an_entry_without_a_flaw_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, "attack", Good()).entries["good"] == Good()
    strong = replace(PGD, name="pgd-strong", steps=1000)
    assert found(monkeypatch, "attack", strong, "pgd-strong").entries["pgd-strong"] is strong


@pytest.mark.parametrize(
    ("kind", "entry", "name", "problem"),
    [
        ("attack", Good, "good", "it is a class, and must be an object"),
        ("attack", Plain(), "good", "it is not a dataclass"),
        ("attack", object(), "good", "it has no name"),
        ("attack", Thawed(), "good", "its dataclass is not frozen"),
        ("attack", Listed([3]), "good", "the default of its parameter levels must be one of bool, int"),
        ("attack", Hinted(), "good", "cannot be loaded .NameError: name 'NoSuchType' is not defined"),
        ("attack", Bounded(), "good", "its traits have epsilon, so it must have a parameter with that name"),
        ("attack", Needy(), "good", "its needs must be 'runtime' or 'gradient', not 'nothing'"),
        ("attack", Named(), "Not a name", "use lowercase letters, digits and single hyphens"),
        ("attack", Good(), "better", "the entry point is named better, but the attack is named good"),
        ("defense", Mean(), "mean", "it is an object, and must be a class"),
        ("defense", Unset, "mean", "the default of its parameter size must be one of bool, int, float, str"),
    ],
)
def test_a_flawed_entry_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, kind: registry.Kind, entry: object, name: str, problem: str
) -> None:
    result = found(monkeypatch, kind, entry, name)
    (broken,) = result.broken
    assert re.search(problem, broken.problem), broken.problem
    assert all(source == registry.OWN for source in result.sources.values())


@pytest.mark.parametrize("load", [leave, lambda: 1 / 0], ids=["exit", "error"])
def test_whatever_a_plugin_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch, load: Callable[[], object]) -> None:
    (broken,) = found(monkeypatch, "attack", None, load=load).broken
    assert "cannot be loaded" in broken.problem


def test_a_broken_defense_is_named_where_a_profile_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = found(monkeypatch, "defense", object(), "fade")
    monkeypatch.setattr(registry, "find_entries", lambda kind: lacking)
    (tmp_path / "faded.toml").write_text(FADED)
    with pytest.raises(InputError, match=r"defense 'fade' of unknown .* cannot be used: .* it has no name"):
        read_profile(tmp_path / "faded.toml")
    with pytest.raises(UsageError, match="cannot be used"):
        registry.choose("defense", ["fade"], lacking.entries)
