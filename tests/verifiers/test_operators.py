"""Each operator that gradients are translated for, on ONNX's own cases: equal or refused, and never wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.verifiers.operators import EQUAL, WRONG, cases, judge
from toolkit.verifiers.onnx_graph import operators


@pytest.mark.parametrize("name", sorted(operators()))
@pytest.mark.filterwarnings("ignore")
def test_an_operator_computes_what_onnx_says_or_is_refused(name: str) -> None:
    verdicts = [judge(case, np.random.default_rng(0)) for case in cases(name)]
    assert not [why for verdict, why in verdicts if verdict == WRONG]
    # ONNX's casts are between the types that face verifiers do not have.
    assert EQUAL in [verdict for verdict, _ in verdicts] or name == "Cast"
