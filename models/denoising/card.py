"""Measure a shipped denoiser and write its card.

python models/denoising/card.py unet --lfw LFW
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from training_faces import lfw_photographs

from toolkit.audit.clean.result import clean_result
from toolkit.audit.clean.run import run_clean
from toolkit.defenses.denoiser import Denoiser
from toolkit.defenses.mean import Mean
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import to_8bit, to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile
from toolkit.report.terminal import percent
from toolkit.statistics.verification import best_threshold
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model

SIDE, IMAGES, TUNED_ON = 160, 200, 24
SIGMAS = (15, 25, 50)
# Published PSNR in dB, on natural images in color or gray: not on faces, and by the full-width network.
PUBLISHED = {
    "unet": "Noise2Noise U-Net, full width: 31.01 dB at sigma 25 (BSD300, color)",
    "red30": "RED30, full width: 27.95 dB at sigma 30, 25.75 dB at sigma 50 (BSD200, gray)",
    "dncnn": "DnCNN-B, full width: 31.23 dB at sigma 25, 27.92 dB at sigma 50 (CBSD68, color)",
}
TITLES = {
    "unet": "unet: the Noise2Noise U-Net at 3/8 of its width",
    "red30": "red30: RED30 at a quarter of its width",
    "dncnn": "dncnn: DnCNN-B at a quarter of its width",
}
PROFILES = {"unet": "n2c", "red30": "red30", "dncnn": "dncnn"}

CARD = """\
# {title}

A denoiser of {parameters:,} parameters that stands before a face verifier (profile `{profile}`).
{provenance}.
It saw aligned crops of LFW sets 1-6 with blind Gaussian and uniform noise up to a deviation of 60/255, and one crop in
five with an FGSM or DeepFool perturbation against `facenet-mini`.

## Denoising

PSNR in dB over {images} crops (160 x 160) of people of LFW set 7, which it never saw; Gaussian noise, rounded to 8 bits
and cut off at 0 and 255 as a deployed verifier receives it. Mean and its 95 % interval over images.

| sigma (of 255) | noisy | this network | non-local means (OpenCV) | 3 x 3 mean |
| --- | --- | --- | --- | --- |
{rows}

Non-local means in color, its strength chosen for each sigma on {tuned} crops of set 8.
Published, for orientation only (other images): {published}.

## Before `facenet-mini`

On the pairs of LFW sets 7-8 ({genuine} genuine, {impostor} impostor), no attack:

| | FNMR % | FMR % | EER % |
| --- | --- | --- | --- |
{clean}

The last row puts the threshold where accuracy on these same pairs is best: what recalibration could gain at most.

## Cost

One 160 x 160 crop, ONNX Runtime on one thread, median of {repeats}: {latency:.0f} ms for the denoiser beside
{verifier_latency:.0f} ms for `facenet-mini`, measured in turns: {ratio:.1f} times the verifier's time.

    python models/denoising/card.py {name} --lfw LFW

## Limits

Trained briefly on one kind of photograph. It smooths what it takes for noise, fine texture of skin and hair included.
It is **no defense against an attacker who knows it**: see the perfect-knowledge rows of any audit. It must not be used
to identify anybody.
"""


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.mean(np.square(a.astype(np.float64) - b), axis=(1, 2, 3)))


def non_local_means(noisy: np.ndarray, strength: float) -> np.ndarray:
    done = [cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 7, 21) for image in to_8bit(noisy)]
    return to_unit(np.stack(done))


def noised(clean: np.ndarray, sigma: int) -> np.ndarray:
    noise = np.random.default_rng(sigma).standard_normal(clean.shape, np.float32)
    return to_unit(to_8bit(np.clip(clean + noise * np.float32(sigma / 255), 0, 1)))


def crops_of(lfw: Path, fold: int, count: int) -> np.ndarray:
    photographs = lfw_photographs(lfw, range(fold, fold + 1))
    chosen = np.random.default_rng(0).choice(len(photographs), count, replace=False)
    return to_unit(np.stack([photographs.crop(i, SIDE)[..., ::-1] for i in chosen]))


def interval(values: np.ndarray) -> str:
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} ± {half:.2f}"


def median_ms(sessions: list, feeds: list, repeats: int) -> list[float]:
    """Medians of sessions that are run in turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(repeats):
        for session, feed, kept in zip(sessions, feeds, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            kept.append(1000 * (time.perf_counter() - start))
    return [float(np.median(kept)) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(TITLES))
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    name = args.network
    denoiser = Denoiser(name)

    clean, tuning = crops_of(args.lfw, 7, IMAGES), crops_of(args.lfw, 8, TUNED_ON)
    rows = []
    for sigma in SIGMAS:
        noisy, tuned = noised(clean, sigma), noised(tuning, sigma)
        strengths = [share * sigma for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)]
        strength = max(strengths, key=lambda h: psnr(non_local_means(tuned, h), tuning).mean())
        results = [
            noisy,
            denoiser.numpy(noisy),
            non_local_means(noisy, strength),
            Mean(3).numpy(noisy),
        ]
        rows.append(f"| {sigma} | " + " | ".join(interval(psnr(result, clean)) for result in results) + " |")
        print(rows[-1], flush=True)

    manifest = find_manifest("facenet-mini")
    model, spec = read_model(manifest), manifest.input
    crops = crop_pairs(load_pairs(args.lfw, folds=(7, 8)), spec.width, spec.height, manifest.alignment.template)
    labels = np.array([pair.genuine for pair in crops.pairs])
    table = []
    for title, profile in (("none", Profile("none", "", (), "")), (PROFILES[name], Profile("", "", (denoiser,), ""))):
        run = run_clean(RuntimeVerifier(manifest, harden(model, manifest, profile)), crops, manifest.decision)
        result = clean_result(title, run, labels)
        table.append(f"| {title} | {percent(result.fnmr)} | {percent(result.fmr)} | {100 * result.eer:.2f} |")
    threshold = best_threshold(run.distances, labels)
    same = run.distances < threshold
    fnmr, fmr = 100 * np.mean(~same[labels]), 100 * np.mean(same[~labels])
    table.append(f"| {title} at {threshold:.4f} | {fnmr:.1f} | {fmr:.1f} | |")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for content in (denoiser.manifest.model.read_bytes(), model)
    ]
    crop = clean[:1]
    feeds = [{"input": np.ascontiguousarray(crop.transpose(0, 3, 1, 2))}, {"input": (crop * 255 - 127.5) / 128}]
    ours, verifier = median_ms(sessions, feeds, args.repeats)

    card = CARD.format(
        title=TITLES[name],
        name=name,
        profile=PROFILES[name],
        parameters=parameters(denoiser),
        provenance=denoiser.manifest.provenance.split(";")[0],
        images=IMAGES,
        tuned=TUNED_ON,
        rows="\n".join(rows),
        published=PUBLISHED[name],
        genuine=int(labels.sum()),
        impostor=int((~labels).sum()),
        clean="\n".join(table),
        repeats=args.repeats,
        latency=ours,
        verifier_latency=verifier,
        ratio=ours / verifier,
    )
    (ROOT / "models" / name / "CARD.md").write_text(card)
    print(card)


def parameters(denoiser: Denoiser) -> int:
    from toolkit.networks import build

    return int(build(**denoiser.manifest.network).count_params())


if __name__ == "__main__":
    main()
