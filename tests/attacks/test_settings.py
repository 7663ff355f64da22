"""Parameters set by the user: typed, in their ranges, and of the attack that was meant."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.attacks.linear import with_start
from tests.attacks.test_attacks import equipped, linear_task
from toolkit.attacks.base import Task
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.settings import apply_settings, weakened
from toolkit.errors import UsageError
from toolkit.pixels import to_unit
from toolkit.registry import discover

ATTACKS = discover("attack")


def test_values_are_of_their_parameters_types() -> None:
    settings = ["pgd.epsilon=4/255", "pgd.steps=7", "gaussian.squared=true", "fgsm.spacing=linear", "pgd.steps=8"]
    pgd, fgsm, gaussian = apply_settings((Pgd(), Fgsm(), Gaussian()), settings)
    assert pgd == Pgd(epsilon=4 / 255, steps=8)
    assert fgsm == Fgsm(spacing="linear")
    assert gaussian == Gaussian(squared=True)
    assert apply_settings((ATTACKS["pgd-l2"],), ["pgd-l2.epsilon=3"]) == (replace(ATTACKS["pgd-l2"], epsilon=3.0),)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("pgd.epsilon", "write ATTACK.PARAMETER=VALUE"),
        ("epsilon=1", "write ATTACK.PARAMETER=VALUE"),
        ("pdg.epsilon=1", "did you mean 'pgd'"),
        ("pgd.epsilom=1", "did you mean 'epsilon'"),
        ("pgd.name=other", "unknown parameter of pgd 'name'"),
        ("pgd.needs=runtime", "unknown parameter of pgd 'needs'"),
        ("pgd.steps=1.5", "'1.5' is not a whole number"),
        ("pgd.steps=0", "steps must be from 1 to"),
        ("pgd.epsilon=0", "epsilon must be from"),
        ("pgd.epsilon=1/0", "is not a number or a fraction"),
        ("pgd.epsilon=nan", "epsilon must be from"),
        ("pgd.epsilon=", "'' is not a number"),
        ("pgd.norm=l3", "unknown value 'l3'; known: "),
        ("gaussian.squared=yes", "unknown value 'yes'; known: true, false"),
        ("nes.samples=3", "in steps of 2"),
        ("square.budget=0", "budget must be from 1 to"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(setting: str, says: str) -> None:
    attacks = (Pgd(), Gaussian(), ATTACKS["nes"], ATTACKS["square"])
    with pytest.raises(UsageError, match=says) as caught:
        apply_settings(attacks, [setting])
    assert f"--set {setting}:" in str(caught.value)


def extremes() -> list[Any]:
    """Every attack with each number at the end of its range that costs little: one parameter at a time."""
    changed = []
    for attack in ATTACKS.values():
        for declared in fields(attack):
            if "lowest" in declared.metadata:
                whole = isinstance(declared.default, int)
                ends = ("lowest",) if whole else ("lowest", "highest")
                changed += [(attack, declared.name, type(declared.default)(declared.metadata[end])) for end in ends]
    return changed


def test_every_number_has_a_range_that_its_default_is_in() -> None:
    for attack in ATTACKS.values():
        for declared in fields(attack):
            if isinstance(declared.default, int | float) and not isinstance(declared.default, bool):
                value = getattr(attack, declared.name)
                assert apply_settings((attack,), [f"{attack.name}.{declared.name}={value}"]) == (attack,)
                assert "lowest" in declared.metadata, f"{attack.name}.{declared.name}"


@pytest.mark.parametrize(("attack", "name", "value"), extremes(), ids=lambda v: getattr(v, "name", str(v)))
def test_an_attack_works_at_the_ends_of_its_ranges(attack: Any, name: str, value: float) -> None:
    # What is lengthy otherwise is shortened.
    short = {"steps": 5, "levels": 4, "restarts": 1, "budget": 120, "searches": 2, "samples": 10, "epochs": 2}
    shorter = {f.name: short[f.name] for f in fields(attack) if f.name in short and f.name != name}
    changed = replace(attack, **shorter, **{name: value})
    model, plain = linear_task(4)
    task: Task = with_start(model, equipped(plain)) if attack.needs == "runtime" else equipped(plain)
    with np.errstate(all="raise", under="ignore"):
        crafted = changed.craft(model, task)
    for probes, success in ((crafted.probes, crafted.success), (to_unit(crafted.probes8), crafted.success8)):
        assert np.isfinite(probes).all()
        assert probes.min() >= 0
        assert probes.max() <= 1
        d = np.linalg.norm(model.embed(probes) - task.references, axis=1)
        assert np.where(task.dodging, d >= 1, d < 1)[success].all()


def test_no_attack_as_it_comes_is_weakened() -> None:
    assert {name: weakened(attack) for name, attack in ATTACKS.items()} == dict.fromkeys(ATTACKS, ())


# What an attack's traits declare: whoever reads the run judges it.
DECLARED = {"norm", "epsilon", "steps", "restarts", "budget", "draws", "levels"}


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_other_parameter_may_make_an_attack_weaker(name: str) -> None:
    """There is no telling which values weaken it, so all do, apart from more of what only makes it stronger."""
    attack = ATTACKS[name]
    for declared in fields(attack):
        if declared.name != "name" and "lowest" in declared.metadata:
            value = getattr(attack, declared.name)
            for end in ("lowest", "highest"):
                other = type(value)(declared.metadata[end])
                if other != value:
                    stronger = declared.name in DECLARED or (declared.name == "searches" and end == "highest")
                    found = weakened(replace(attack, **{declared.name: other}))
                    assert found == (() if stronger else (declared.name,)), f"{declared.name} = {other}"


def test_what_is_weakened_is_named_in_the_order_of_the_parameters() -> None:
    assert weakened(replace(ATTACKS["deepfool"], overshoot=0.0)) == ("overshoot",)
    assert weakened(replace(ATTACKS["carlini-wagner"], searches=1)) == ("searches",)
    assert weakened(replace(ATTACKS["carlini-wagner"], searches=9)) == ()
    assert weakened(replace(ATTACKS["apgd"], rho=0.1, momentum=0.5, steps=1, epsilon=1.0)) == ("momentum", "rho")
    assert weakened(replace(ATTACKS["gaussian"], squared=True)) == ("squared",)
    assert weakened(replace(ATTACKS["fgsm"], spacing="linear")) == ("spacing",)
    assert weakened(replace(ATTACKS["glasses"], mask=Path("mask.png"))) == ("mask",)


def test_each_attack_is_compared_with_the_attack_of_its_name() -> None:
    """PGD in L2 has another step than PGD, and both are as they come."""
    assert weakened(ATTACKS["pgd-l2"]) == ()
    assert weakened(replace(ATTACKS["pgd-l2"], step=ATTACKS["pgd"].step)) == ("step",)
    assert weakened(Pgd()) == ()
    # A name that nobody knows, or that another attack has: the class as it comes stands for it.
    assert weakened(Gaussian(largest=0.1)) == ("largest",)


@dataclass(frozen=True)
class Mine(Gaussian):
    """An attack that is not installed."""

    name: ClassVar[str] = "mine"
    grain: float = 1.0


@dataclass(frozen=True)
class Other(Mine):
    """One that has the name of an attack that is installed."""

    name: ClassVar[str] = "gaussian"


def test_attacks_that_are_not_installed_are_compared_with_their_class() -> None:
    for kind in (Mine, Other):
        assert weakened(kind()) == ()
        assert weakened(kind(grain=2.0, levels=1)) == ("grain",)


def spent(attack: Any, **parameters: object) -> tuple[int, int, int | None, int, float | None]:
    traits = replace(attack, **parameters).traits
    return traits.steps, traits.restarts, traits.budget, traits.draws, traits.finest


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("apgd", {"steps": 7, "restarts": 3}, (7, 3, None, 0, None)),
        ("pgd", {"steps": 7, "restarts": 3}, (7, 3, None, 0, None)),
        ("momentum", {"steps": 7}, (7, 1, None, 0, None)),
        ("deepfool", {"steps": 7}, (7, 1, None, 0, None)),
        ("deepfool-linf", {"steps": 7}, (7, 1, None, 0, None)),
        ("fmn", {"steps": 7}, (7, 1, None, 0, None)),
        ("carlini-wagner", {"steps": 7}, (7, 1, None, 0, None)),
        ("glasses", {"steps": 7}, (7, 1, None, 0, None)),
        ("square", {"budget": 7}, (0, 0, 7, 0, None)),
        ("gaussian", {"levels": 4, "draws": 3, "largest": 0.5}, (0, 0, None, 12, 0.125)),
        ("uniform", {"levels": 4, "draws": 3, "largest": 0.5}, (0, 0, None, 12, 0.125)),
        ("gaussian", {"levels": 4, "largest": 0.5, "squared": True}, (0, 0, None, 4, 0.03125)),
        ("blended", {"levels": 7}, (0, 0, None, 7, None)),
        ("contrast", {"levels": 7}, (0, 0, None, 7, None)),
        ("salt-pepper", {"levels": 7}, (0, 0, None, 7, None)),
    ],
)
def test_traits_tell_what_an_attack_spends(
    name: str, parameters: dict[str, object], expected: tuple[int | float | None, ...]
) -> None:
    assert spent(ATTACKS[name], **parameters) == expected


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
@pytest.mark.parametrize("squared", [False, True])
def test_the_finest_noise_has_the_declared_deviation(name: str, squared: bool) -> None:
    """Of gray probes of a verifier that the first level always fools."""
    attack = replace(ATTACKS[name], levels=5, largest=0.4, squared=squared)
    model, task = linear_task(4)
    task = equipped(replace(task, probes=np.full_like(task.probes, 0.5), references=task.references + 100))
    task = replace(task, dodging=np.ones_like(task.dodging))
    crafted = attack.craft(model, task)
    noise = crafted.probes[crafted.success] - 0.5
    assert crafted.success.all()
    assert noise.std() == pytest.approx(attack.traits.finest, rel=0.1)
