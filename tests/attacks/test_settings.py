"""Parameters set by the user: typed, in their ranges, and of the attack that was meant."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tests.attacks.linear import with_start
from tests.attacks.test_attacks import equipped, linear_task
from toolkit.attacks.base import Task
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.settings import apply_settings
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
