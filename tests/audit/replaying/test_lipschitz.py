"""Certificates of a Lipschitz bound in an audit."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.models import write_people
from toolkit.audit.options import AuditOptions
from toolkit.audit.plan import Scenario
from toolkit.audit.replaying.certificates import PairCertificates
from toolkit.audit.replaying.lipschitz import check_certificates
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.results.certified import certified_radii
from toolkit.audit.results.outcomes import read_run
from toolkit.audit.run import audit_verifier
from toolkit.errors import InputError
from toolkit.profiles.profile import find_profile
from toolkit.registry import discover
from toolkit.report.assessment import print_assessment
from toolkit.verifiers.lipschitz import lipschitz_bound
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import read_model


def promise(model: Path, factor: float) -> float:
    """Write `factor` times the verifier's bound into its manifest."""
    manifest = read_manifest(model)
    bound = factor * lipschitz_bound(read_model(manifest), manifest)
    text = manifest.path.read_text()
    manifest.path.write_text(text.replace("[decision]", f"lipschitz = {bound!r}\n[decision]"))
    return bound


def test_no_attack_comes_within_a_certified_radius_and_the_best_come_near_it(tmp_path: Path) -> None:
    model = write_people(tmp_path)
    promise(model, 1.0)
    options = AuditOptions(
        model=str(model), pairs=str(tmp_path / "pairs.csv"), profiles=("none", "mean3"), attacks=("fmn", "gaussian"),
        limit=20, certify=(0.1,), run=str(tmp_path / "run"), settings=("gaussian.draws=2",),
    )  # fmt: skip
    run = audit_verifier(options)
    deployed = [c for c in run.assessment.certification if c.deployed]
    assert {(c.profile, c.sigma, c.samples, c.confidence) for c in deployed} == {("none", 0.0, 0, 1.0)}
    assert {c.profile for c in run.assessment.certification if not c.deployed} == {"none", "mean3"}, "with --certify"
    kept = read_run(tmp_path / "run")
    radii = certified_radii(kept, "none")
    assert radii is not None
    assert certified_radii(kept, "mean3") is None, "nobody has bounded the filter"
    assert (radii > 0).mean() > 0.5
    norms = np.min([np.where(o.success, o.l2, np.inf) for o in run.outcomes if o.profile == "none"], axis=0)
    fallen = np.isfinite(norms) & (radii > 0)
    assert fallen.sum() >= 5, "an attack that never succeeds checks nothing"
    assert (norms[fallen] >= radii[fallen]).all()
    (check,) = (c for c in run.assessment.checks if c.name == "certificates")
    assert (check.about, check.passed) == ("none", True)
    assert np.median(norms[fallen] / radii[fallen]) < 3, "certificates are of the size of what attacks need"
    page = io.StringIO()
    print_assessment(run.assessment, Console(file=page, width=80), [])
    text = " ".join(page.getvalue().split())
    assert "Certificates of none hold for what is deployed, without noise, vote or confidence" in text


def test_an_audit_of_a_verifier_that_promises_too_much_does_not_begin(tmp_path: Path) -> None:
    model = write_people(tmp_path)
    promise(model, 0.9)
    options = AuditOptions(model=str(model), pairs=str(tmp_path / "pairs.csv"), run=str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"output\.lipschitz is"):
        audit_verifier(options)


def test_a_probe_within_a_certified_radius_fails_the_check() -> None:
    """Certificates of votes are about all noise, and are not checked so."""
    genuine = np.array([True, True, False])
    replay = Replay(
        **{f.name: np.zeros(3) for f in fields(Replay)}
        | {"passed": genuine[:, None], "at_goal": genuine, "l2": np.array([0.4, 2, 0])}
    )
    scenario = Scenario(discover("attack")["fmn"], "zero", find_profile("none"), find_profile("none"))  # type: ignore[arg-type]
    for right, radius, samples, passed in (
        ([1, 1, 0], 0.3, 0, [True]),
        ([1, 1, 0], 0.5, 0, [False]),
        ([0, 1, 0], 0.5, 0, [True]),  # decided wrongly, so that nothing right is certified
        ([1, 1, 0], 0.5, 64, []),
    ):
        made = PairCertificates("none", 0.0, samples, 1.0, np.array(right), np.full(3, radius))
        checks = check_certificates([(scenario, replay)], [made], genuine)
        assert [check.passed for check in checks] == passed
    assert check_certificates([(scenario, replay)], [replace(made, profile="mean3", samples=0)], genuine) == []
