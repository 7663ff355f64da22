"""What a smoothed verifier decides rightly and certifies, beside the bare one, on the same pairs.

python benchmarks/certified.py facenet-mini --pairs LFW --limit 200 --calls 8 --work build/certified

The threshold of the vote is chosen on pairs of other folds, so that its FMR there is that of the bare verifier. A
radius grows with the number of draws, so that the votes of several calls of the hardened file are added. Both ways to
put the draws together are judged: the vote of single draws, and the mean of their embeddings, which has the inputs and
outputs of the bare file. Finished calls are kept in the work folder, and a second run continues.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from hardened_cost import cost_of_draws
from loading import crops_of
from numpy.typing import NDArray

from toolkit.faces.crops import CropSet
from toolkit.files import write_bytes
from toolkit.pixels import Bools, Float, to_unit
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile, find_profile
from toolkit.report.terminal import whole_percent
from toolkit.statistics.certification import embedding_radius, vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances, normalized
from toolkit.verifiers.variants import centers, draw_distances, voted_distances

RADII = (0.1, 0.25, 0.5, 1.0)


def drawn(manifest: Manifest, profile: Profile, crops: NDArray[np.uint8], call: int, work: Path) -> NDArray[np.float32]:
    """The embeddings (N, draws * D) of crops in one call of the hardened file, kept in `work`."""
    content = f"{profile.sha256}{manifest.sha256}{call}".encode() + crops.tobytes()
    path = work / f"{hashlib.sha256(content).hexdigest()[:24]}.f16"
    width = profile.draws * manifest.output.size
    if not path.exists():
        verifier = deploy(read_model(manifest), manifest, profile, Execution("cpu"), seed=call)
        write_bytes(path, verifier.embed(to_unit(crops)).astype(np.float16).tobytes())
        print(f"call {call}: {len(crops)} crops, {profile.draws} draws each", flush=True)
    return np.frombuffer(path.read_bytes(), np.float16).reshape(-1, width).astype(np.float32)


def pair_draws(
    manifest: Manifest, profile: Profile, crops: CropSet, calls: int, work: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The draws of every pair's probe over all calls, and the enrolled embedding of its reference."""
    used, place = np.unique(crops.index[:, 0], return_inverse=True)
    enrolled, where = np.unique(crops.index[:, 1], return_inverse=True)
    probes = [drawn(manifest, profile, crops.images[used], call, work)[place] for call in range(calls)]
    references = centers(drawn(manifest, profile, crops.images[enrolled], calls, work), manifest.output.size)[where]
    return np.concatenate(probes, axis=1), references


def threshold_at(d: Float, genuine: Bools, fmr: float) -> float:
    """The threshold that accepts this share of the impostors."""
    return float(np.quantile(d[~genuine], fmr))


def bare_distances(manifest: Manifest, crops: CropSet) -> Float:
    e = RuntimeVerifier(manifest).embed(to_unit(np.asarray(crops.images)))
    return distances(manifest.decision.metric, e[crops.index[:, 0]], e[crops.index[:, 1]])


def show(name: str, same: Bools, radius: Float, genuine: Bools, certain: Bools) -> None:
    """Print the errors, and the share of pairs that are decided rightly with each radius."""
    right, everywhere = same == genuine, np.ones(len(genuine), np.bool_)
    rates = [_rate(~right, genuine), _rate(~right, ~genuine), _rate(~certain, everywhere)]
    rates += [_rate(right & certain & (radius >= r), everywhere) for r in RADII]
    print(f"| {name} | " + " | ".join(whole_percent(rate) for rate in rates) + " |", flush=True)


def _rate(hit: Bools, of: Bools) -> Rate:
    return Rate(int((hit & of).sum()), int(of.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--profile", default="smoothed")
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--calibration", default="1,2,3,4,5,6", help="folds that the threshold is chosen on")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--confidence", type=float, default=0.99)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    manifest, profile = find_manifest(args.verifier), find_profile(args.profile)
    metric, size = manifest.decision.metric, manifest.output.size

    crops, genuine = crops_of(manifest, args.pairs, args.calibration, args.limit)
    d = bare_distances(manifest, crops)
    fmr = float(np.mean(d[~genuine] < manifest.decision.threshold))
    probes, references = pair_draws(manifest, profile, crops, 1, args.work)
    threshold = threshold_at(voted_distances(metric, size, probes, references), genuine, fmr)
    mean = normalized(centers(probes, size))
    mean_threshold = threshold_at(distances(metric, mean, normalized(references)), genuine, fmr)
    print(f"FMR {100 * fmr:.1f} % on {len(genuine)} pairs of folds {args.calibration}: vote at {threshold:.4f}, mean "
          f"at {mean_threshold:.4f}")  # fmt: skip

    crops, genuine = crops_of(manifest, args.pairs, args.folds, args.limit)
    draws = args.calls * profile.draws
    print(f"\n{len(genuine)} pairs of folds {args.folds}; {draws} draws of noise {profile.sigma:g}, confidence "
          f"{args.confidence:g}; 95 % Wilson intervals\n")  # fmt: skip
    print("| | FNMR % | FMR % | abstains % |" + "".join(f" right, certified at {r:g} % |" for r in RADII))
    print("| --- " * (4 + len(RADII)) + "|")
    bare = bare_distances(manifest, crops) < manifest.decision.threshold
    show("bare", bare, np.zeros(len(genuine)), genuine, np.ones(len(genuine), np.bool_))
    probes, references = pair_draws(manifest, profile, crops, args.calls, args.work)
    votes = (draw_distances(metric, size, probes, references) < threshold).sum(axis=1)
    radius = vote_radii(draws, profile.sigma, args.confidence)[votes]
    show("vote", 2 * votes > draws, radius, genuine, radius > 0)
    each = normalized(probes.reshape(len(genuine), draws, size))
    # On unit vectors, every metric is a squared Euclidean distance of another scale.
    squared = {"cosine": 2 * mean_threshold, "euclidean": mean_threshold**2}.get(metric, mean_threshold)
    found = [
        embedding_radius(e, reference, squared, profile.sigma, args.confidence)
        for e, reference in zip(each, normalized(references), strict=True)
    ]
    accepts, lengths = (np.array(column) for column in zip(*found, strict=True))
    show("mean embedding", accepts, lengths, genuine, lengths > 0)
    print(f"\n{cost_of_draws(manifest, profile)}")


if __name__ == "__main__":
    main()
