"""ONNX's own test cases of every operator that gradients are translated for: equal values, and true gradients.

    python benchmarks/operators.py

The cases come with onnx (`onnx.backend.test`), and nobody here wrote them. Of each case the first input is the model's,
and the others become constants, as weights are. A case is counted as equal, as refused by an error of ours, or as
wrong. Gradients of floating-point inputs are compared with central differences. Exits with 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.verifiers.operators import EQUAL, REFUSED, WRONG, cases, judge
from toolkit.verifiers.onnx_graph import operators


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default="", help="only these operators, separated by commas")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    claimed = args.names.split(",") if args.names else sorted(operators())
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    rng = np.random.default_rng(0)
    for name in claimed:
        for case in cases(name):
            verdict, why = judge(case, rng)
            found[name][verdict].append(f"{case.name}: {why}" if why else case.name)
    lines = [f"onnx {onnx.__version__}: operator, cases that are equal, refused, wrong"]
    for name in claimed:
        counts = [len(found[name][verdict]) for verdict in (EQUAL, REFUSED, WRONG)]
        lines.append(f"{name:24}" + "".join(f"{count:5}" for count in counts))
    totals = [sum(len(of[verdict]) for of in found.values()) for verdict in (EQUAL, REFUSED, WRONG)]
    lines.append(f"{len(claimed)} operators{'':12}" + "".join(f"{total:5}" for total in totals))
    lines += [f"wrong: {text}" for of in found.values() for text in of[WRONG]]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(totals[2]))


if __name__ == "__main__":
    main()
