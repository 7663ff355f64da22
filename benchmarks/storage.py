"""Bytes of a pair's crafted probes in a run folder: as compressed float arrays, and as the artifacts that are written.

Also how many float successes on the attacked verifier the artifact's 14 bits would change.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from toolkit.attacks.base import margins, reached
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.artifacts import decode_probes, encode_probes
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.suites import BUDGET, balls, choose_attacks
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_8bit
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--attacks", default="deepfool,fgsm,gaussian,uniform,pgd")
    asked = parser.parse_args()
    manifest, none = find_manifest("facenet-mini"), find_profile("none")
    assert manifest.alignment is not None  # noqa: S101 - the shipped verifier has one
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=asked.pairs), 160, 160, manifest.alignment.template)
    bench = Bench(manifest, Execution("cpu", threads=1), 0)
    clean, rows = run_clean(bench.deployed(none), crops, manifest.decision), np.arange(len(crops.pairs))
    print(f"{'attack':12} {'arrays':>10} {'artifact':>10}  float successes changed")
    for attack in choose_attacks("standard", asked.attacks.split(","), [], balls(BUDGET, 3 * 160 * 160)):
        references = clean.embeddings[crops.index[:, 1]]
        task = make_task(attack.name, crops, rows, references, manifest.decision, 0, clean.alarm)
        crafted = attack.craft(bench.side(attack, none), task)  # type: ignore[arg-type]
        arrays = io.BytesIO()
        np.savez_compressed(arrays, **{field.name: getattr(crafted, field.name) for field in fields(crafted)})
        content = encode_probes(crafted, to_8bit(task.probes))
        kept = decode_probes(content, to_8bit(task.probes))
        assert kept is not None  # noqa: S101 - it was written a line above
        still = reached(task, rows, margins(bench.deployed(none), task, rows, kept.probes))
        changed = int((still != crafted.success)[crafted.success].sum())
        sizes = (len(arrays.getvalue()) / len(rows), len(content) / len(rows))
        print(f"{attack.name:12} {sizes[0]:10.0f} {sizes[1]:10.0f}  {changed} of {int(crafted.success.sum())}")


if __name__ == "__main__":
    main()
