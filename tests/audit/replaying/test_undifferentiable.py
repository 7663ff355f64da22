"""A verifier that hides its gradients on purpose voids its own audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.audit.suites import balls, choose_attacks
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest

# Between the input and the verifier: what hides the gradient.
HIDING = {
    "rounding": [("Mul", "input levels", "a"), ("Round", "a", "b"), ("Div", "b levels", "seen")],
    "signs": [("Sub", "input half", "a"), ("Sign", "a", "b"), ("Mul", "b half", "c"), ("Add", "c half", "seen")],
    "wrong way": [
        ("Mul", "input levels", "a"), ("Round", "a", "b"), ("Div", "b levels", "c"), ("Mul", "input little", "d"),
        ("Sub", "c d", "seen"),
    ],
}  # fmt: skip
CONSTANTS = {"levels": 32.0, "half": 0.5, "little": 1e-3}


def hide(path: Path, how: str) -> None:
    """Put operators in front of a verifier's file."""
    model = onnx.load(path)
    nodes = [helper.make_node(kind, given.split(), [made]) for kind, given, made in HIDING[how]]
    used = {name for _, given, _ in HIDING[how] for name in given.split()}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in CONSTANTS.items() if name in used
    )
    model.graph.node[0].input[0] = "seen"
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@pytest.mark.parametrize("how", HIDING)
def test_a_verifier_without_useful_gradients_voids_its_audit(request_: Request, tmp_path: Path, how: str) -> None:
    manifest = request_.manifest
    hide(manifest.model, how)
    manifest = read_manifest(manifest.path)
    at = balls(2.15, 3 * manifest.input.height * manifest.input.width)
    attacks = choose_attacks("strong", None, ["square.budget=50", "cgba.budget=200"], at)
    strong = replace(request_, manifest=manifest, attacks=attacks, profiles=(find_profile("none"),))
    assessment = run_audit(strong, tmp_path / "run")
    failed = {check.name for check in assessment.checks if not check.passed}
    assert not assessment.valid
    assert "gradient" in failed
    by_gradient = [f"{attack.name} on none" for attack in attacks if attack.needs == "gradient"]
    assert [u.attack for u in assessment.unavailable] == (by_gradient if how == "rounding" else [])
