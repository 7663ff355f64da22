"""Measure the embedded faces, and write their card and the photograph nearest to each (`nearest.csv`).

python models/nobody/card.py --lfw LFW --verifier dlib_resnet.onnx
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT / "models"), str(HERE)]

from training_faces import lfw_photographs

from toolkit.audit.clean.result import clean_result
from toolkit.audit.clean.run import run_clean
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.report.terminal import percent
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.scores import distances

CARD = """\
# nobody: faces of people who do not exist

{identities} identities with {images} images (160 x 160, {size:.1f} MB) and {genuine} genuine and {impostor} impostor
pairs: what `sixpixels audit` attacks when it is given no pairs of its own, so that it runs anywhere, without network
and without anybody's photographs.

## How they were made

`morphable.py` learned a two-dimensional morphable model from the frontal photographs of LFW sets 1-6: dense optical
flow brings every face into one shape, and textures and flows are described by 160 and 40 principal components.
`generate.py` drew identities from the covariance between people and, for each, three images from a part of the
covariance between photographs of one person. Two verifiers, dlib's ResNet-29 and `facenet-mini`, then pulled these
codes, within the spread of the model, by gradient descent, until by both the images of one identity are the same, those
of two identities different, and none is the same as any of the {photographs:,} photographs of LFW sets 1-6. What the
two still did not agree on was thrown away. It takes about half an hour on two cores.

## What the verifiers say

At the thresholds of their manifests, 95 % Wilson intervals:

| | accuracy % | FNMR % | FMR % | nearest photograph, smallest / median | threshold |
| --- | --- | --- | --- | --- | --- |
{rows}

    python models/nobody/card.py --lfw LFW --verifier dlib_resnet.onnx

## What they must not be used for

- **No error rate of a verifier can be read from them.** They were chosen so that two verifiers decide them rightly: a
  clean error of zero here says nothing. Nor does an attack's success here say what it would be on real people: it
  shows that the audit works, and what an attack is like. For a finding, give `--pairs` of real people.
- They look into the camera, before a gray background, and look smoother and more alike in light than photographs do.
- They stand for no group of people: age, sex and origin are whatever the model drew.
- They must not be used to train a verifier, nor passed off as photographs of anybody.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--verifier", required=True, help="dlib_resnet.onnx")
    args = parser.parse_args()
    photographs = lfw_photographs(args.lfw)
    pairs = load_pairs(embedded_pairs())
    rows, recorded = [], [("verifier", "image", "photograph", "distance")]
    for name in (args.verifier, "facenet-mini"):
        manifest = find_manifest(name)
        side, decision = manifest.input.width, manifest.decision
        verifier = RuntimeVerifier(manifest)
        crops = crop_pairs(pairs, side, side, manifest.alignment.template)
        clean = run_clean(verifier, crops, decision)
        result = clean_result("", clean, np.array([pair.genuine for pair in crops.pairs]))
        nearest, whose = np.full(len(crops.images), np.inf), np.zeros(len(crops.images), np.intp)
        for start in range(0, len(photographs), 64):
            batch = range(start, min(start + 64, len(photographs)))
            real = verifier.embed(to_unit(np.stack([photographs.crop(i, side)[..., ::-1] for i in batch])))
            for place, embedding in zip(batch, real, strict=True):
                d = distances(decision.metric, clean.embeddings, np.broadcast_to(embedding, clean.embeddings.shape))
                whose[d < nearest] = place
                nearest = np.minimum(nearest, d)
        recorded += [
            (manifest.name, image, photographs.names[place], f"{d:.4f}")
            for image, place, d in zip(crops.names, whose, nearest, strict=True)
        ]
        rates = " | ".join(percent(rate) for rate in (result.accuracy, result.fnmr, result.fmr))
        near = f"{nearest.min():.3f} / {np.median(nearest):.3f}"
        rows.append(f"| {manifest.name} | {rates} | {near} | {decision.threshold:g} |")
    files = [path for path in embedded_pairs().rglob("*") if path.is_file()]
    images = [path for path in files if path.suffix == ".jpg"]
    genuine = sum(pair.genuine for pair in pairs.pairs)
    card = CARD.format(
        identities=len(Counter(path.parent for path in images)),
        images=len(images),
        size=sum(path.stat().st_size for path in files) / 1e6,
        genuine=genuine,
        impostor=len(pairs.pairs) - genuine,
        photographs=len(photographs),
        rows="\n".join(rows),
    )
    (HERE / "CARD.md").write_text(card)
    with (HERE / "faces" / "nearest.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(recorded)
    print(card)


if __name__ == "__main__":
    main()
