"""Rates by group of pairs: counted by hand, tested against SciPy, and shown as what they are: text from outside."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy import stats

from tests.progress import Silent
from tests.risk.runs import Told, told, told_run, write
from toolkit.audit.request import Request, run_name
from toolkit.audit.results.outcomes import FILE, Run, read_run
from toolkit.audit.results.subgroups import SubgroupComparison, Subgroups
from toolkit.audit.run import run_audit
from toolkit.commands.show import SafeConsole
from toolkit.documents import to_json
from toolkit.errors import InputError
from toolkit.report.assessment import print_assessment
from toolkit.report.schemas import report_schema
from toolkit.report.write import choose_formats
from toolkit.risk.findings import Report
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import rate
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm

PAIRS = 40
# Of each kind, the first 25 pairs are old, 10 are young, and 5 have no label.
LABELS = (["old"] * 25 + ["young"] * 10 + [""] * 5) * 2
TOLD = [
    Told("deepfool", "perfect", "mean3", dodged=30, impersonated=0),
    Told("apgd", "perfect", "mean3", dodged=5, impersonated=2),
    Told("pgd", "perfect", "mean3", dodged=40, impersonated=40, rms=3.0),
]


def found(run: Run) -> Subgroups:
    assert run.assessment.subgroups is not None
    return run.assessment.subgroups


def comparison(run: Run, profile: str, measure: str) -> SubgroupComparison:
    (one,) = [c for c in found(run).comparisons if (c.profile, c.measure) == (profile, measure)]
    return one


def rates(one: SubgroupComparison) -> dict[str, Rate]:
    return {group.label: group.rate for group in one.groups}


def test_rates_by_group_are_counted_over_the_pairs_of_the_group() -> None:
    run = told_run(TOLD, pairs=PAIRS, wrong=[0, 1, 27, PAIRS + 26], subgroups=LABELS)
    assert rates(comparison(run, "mean3", "fnmr")) == {"old": Rate(2, 25), "young": Rate(1, 10)}
    assert rates(comparison(run, "mean3", "fmr")) == {"old": Rate(0, 25), "young": Rate(1, 10)}
    # The first 30 genuine pairs fell to the one attack, of which three are not eligible; what needs more than the
    # budget does not count.
    assert rates(comparison(run, "mean3", "dodging")) == {"old": Rate(23, 23), "young": Rate(4, 9)}
    assert rates(comparison(run, "mean3", "impersonation")) == {"old": Rate(2, 25), "young": Rate(0, 9)}
    assert {c.measure for c in found(run).comparisons if c.profile == "none"} == {"fnmr", "fmr"}
    assert (found(run).unlabeled, found(run).budget) == (10, pytest.approx(2.15))


def test_p_values_are_fishers_and_corrected_over_all_tests() -> None:
    run = told_run(TOLD, pairs=PAIRS, wrong=[0, 1, 27, PAIRS + 26], subgroups=LABELS)
    dodging = comparison(run, "mean3", "dodging")
    assert dodging.p_value == pytest.approx(stats.fisher_exact([[23, 0], [4, 5]]).pvalue)
    tested = [c for c in found(run).comparisons if c.p_value is not None]
    adjusted = [c.p_adjusted for c in tested]
    assert len(tested) == 6
    np.testing.assert_allclose(np.array(adjusted, float), holm([c.p_value or 0 for c in tested]))


@pytest.mark.parametrize(("pairs", "few"), [(29, True), (30, False)])
def test_fewer_pairs_than_the_rule_of_three_asks_for_are_too_few(pairs: int, few: bool) -> None:
    run = told_run(TOLD, pairs=pairs, subgroups=["all"] * (2 * pairs))
    one = comparison(run, "mean3", "fnmr")
    assert [group.few for group in one.groups] == [few]
    assert (one.p_value, one.p_adjusted) == (None, None), "one group is not compared with itself"


def test_pairs_without_labels_have_no_groups() -> None:
    assert told_run(TOLD).assessment.subgroups is None
    assert told_run(TOLD, pairs=PAIRS, subgroups=[""] * (2 * PAIRS)).assessment.subgroups is None


def test_a_finished_run_is_read_with_its_groups(tmp_path: Path) -> None:
    run, _ = told(TOLD, pairs=PAIRS, subgroups=LABELS)
    read = read_run(write(tmp_path, TOLD, pairs=PAIRS, subgroups=LABELS))
    assert read.assessment.subgroups == run.assessment.subgroups
    assert read.faces.subgroups == tuple(LABELS)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE pairs SET subgroup = 'old' WHERE pair = 30", "not those of the groups"),
        ("UPDATE pairs SET subgroup = ''", "have different groups"),
        ("UPDATE pairs SET subgroup = 'x' || pair", "not those of the groups"),
        (f"UPDATE pairs SET subgroup = subgroup || '{'x' * 300}'", "more than 200 characters"),
        ("UPDATE pairs SET subgroup = x'00'", "datatype mismatch|cannot store BLOB"),
    ],
)
def test_groups_that_contradict_the_report_are_refused(tmp_path: Path, statement: str, message: str) -> None:
    folder = write(tmp_path, TOLD, pairs=PAIRS, subgroups=LABELS)
    try:
        with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as database:
            database.execute(statement)
    except sqlite3.Error as error:
        assert "BLOB" in str(error)  # noqa: PT017 - a STRICT table refuses it already
        return
    with pytest.raises(InputError, match=message):
        read_run(folder)


EVIL = "\x1b[31m<b>|`\u202eold"


def test_every_format_shows_groups_and_no_label_acts(tmp_path: Path) -> None:
    labels = [label.replace("old", EVIL) for label in LABELS]
    run = told_run(TOLD, pairs=PAIRS, subgroups=labels)
    report = Report(run, rate(run, find_policy("access-control")), None)
    texts = {one.file: one.render(report) for one in choose_formats(["html", "markdown"])}
    out = io.StringIO()
    print_assessment(run.assessment, SafeConsole(file=out, width=80, markup=False), [])
    texts["terminal"] = out.getvalue()
    for name, text in texts.items():
        assert "by group of pairs" in text.lower(), name
        assert "young" in text, name
        assert "\x1b" not in text, name
        assert "\u202e" not in text, name
        flat = " ".join(text.split())
        assert "Too few pairs to say much of a group alone" in flat, name
        assert "10 pairs have no group" in flat, name
        assert "Rates differ between groups: dodging through mean3" in flat, name
    assert "<b>" not in texts["report.html"]
    assert "<b>" not in texts["report.md"]
    assert max(map(len, texts["terminal"].splitlines())) <= 80


def test_an_audit_labels_its_pairs(request_: Request, tmp_path: Path) -> None:
    crops = request_.crops
    pairs = tuple(replace(pair, subgroup=f"camera {i % 2}") for i, pair in enumerate(crops.pairs))
    labeled = replace(request_, crops=replace(crops, pairs=pairs))
    assert run_name(labeled) != run_name(request_), "other labels are another run"
    assessment = run_audit(labeled, tmp_path, Silent())
    text = to_json(assessment)
    (tmp_path / "report.json").write_text(text)
    jsonschema.validate(json.loads(text), report_schema())
    run = read_run(tmp_path)
    assert run.faces.subgroups == tuple(pair.subgroup for pair in pairs)
    assert {c.measure for c in found(run).comparisons} == {"fnmr", "fmr", "dodging", "impersonation"}
