"""What each verifier and profile costs, what it certifies, and what is left of it before who knows everything.

python benchmarks/holding.py --pairs LFW --rows facenet-mini:none,facenet-mini:smoothed --work build/holding

A row is a verifier with a profile. Its threshold is the one that accepts `--fmr` of the impostors on pairs of the
`--calibration` folds, or of those that the row names (VERIFIER:PROFILE:FOLD+FOLD), if the people of the others were
trained on by name. On the pairs of `--folds` the table then gives an operator's numbers: clean errors, the share of
pairs that is sent to a person because the vote abstains or a detector flags the probe, the share that is decided
rightly and certified, and the attack success rate within each budget, of the attacks up to this budget. A row is on the
front if no other is at least as good in FNMR, in pairs sent to a person and in the attack success rate within the
smallest budget, and better in one.

The attacks are APGD and PGD in the L2 ball of the budget, through the profile: gradients through its filters and its
denoiser, averaged over draws where it is random. PGD attacks what APGD leaves: its steps are shorter and equally long.
Where the draws vote, they aim beyond the zone in which the vote abstains. Where there is a detector, both attack as if
there were none, and what is left once more with an eye on the detector's score. The deployed file judges the 8-bit
probe, presented once by each attack; a probe that is sent to a person is no success. Pairs count that are decided
rightly without an attack. Finished pieces are kept in the work folder, and a second run continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from loading import crops_of
from numpy.typing import NDArray
from scipy.stats import norm

from toolkit.attacks.apgd import Apgd
from toolkit.attacks.pgd import Pgd
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.artifacts import artifact_name
from toolkit.audit.crafting.code import attack_code
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.suites import balls
from toolkit.faces.crops import CropSet
from toolkit.files import write_bytes
from toolkit.pixels import Bools, Float, to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile
from toolkit.report.terminal import whole_percent
from toolkit.statistics.certification import vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.text import escaped
from toolkit.verifiers.lipschitz import certified_radii
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, read_model
from toolkit.verifiers.scores import is_same
from toolkit.verifiers.variants import draw_distances

RADII = (0.1, 0.25, 0.5, 1.0)
ROWS = (
    "facenet-mini:none,facenet-mini:mean3,facenet-mini:n2c,facenet-mini:unet-robust,facenet-mini:randomized,"
    "facenet-mini:detector,facenet-robust:none,facenet-mini:smoothed,facenet-noise:none,facenet-noise:vote25,"
    "facenet-noise:vote45,facenet-lipschitz:none:6"
)
_BATCH, _CHUNK, _TURNS = 32, 20, 7
_PERSON = -1


@dataclass(frozen=True)
class Row:
    """A verifier with a profile, at its own threshold, and the draws that attackers of a vote average over."""

    manifest: Manifest
    profile: Profile
    draws: int

    @property
    def threshold(self) -> float:
        """The threshold of its distances: the vote's, or the manifest's."""
        vote = self.profile.vote
        return self.manifest.decision.threshold if vote is None else vote.threshold

    def at(self, threshold: float) -> Row:
        """The same with another threshold."""
        if self.profile.vote is None:
            return replace(
                self, manifest=replace(self.manifest, decision=replace(self.manifest.decision, threshold=threshold))
            )
        return replace(self, profile=replace(self.profile, vote=replace(self.profile.vote, threshold=threshold)))

    @cached_property
    def file(self) -> bytes:
        """The deployed file, apart from its threshold."""
        plain = self.at(1.0)
        return harden(read_model(plain.manifest), plain.manifest, plain.profile)

    @cached_property
    def key(self) -> str:
        """The hash of the deployed file, apart from its threshold."""
        return hashlib.sha256(self.file).hexdigest()

    @cached_property
    def bench(self) -> Bench:
        """Its verifiers."""
        return Bench(self.manifest, Execution("cpu"), 0, self.draws)


@dataclass(frozen=True)
class Decided:
    """What the deployed row makes of n pairs: 1 same, 0 different, -1 a person decides; and the certified radii."""

    same: NDArray[np.int64]
    radius: Float


def embedded(row: Row, images: NDArray[np.uint8], work: Path) -> tuple[NDArray[np.float32], Float]:
    """The embeddings of crops behind the deployed row, all draws where they vote, and the detector's scores."""
    embeddings: list[NDArray[np.float32]] = []
    scores: list[NDArray[np.float32]] = []
    deployed = None
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH])
        content = row.key.encode() + batch.tobytes()
        path = work / f"{hashlib.sha256(content).hexdigest()[:24]}.npz"
        if not path.exists():
            deployed = deployed or row.bench.deployed(row.profile)
            found = deployed.embed_and_score(to_unit(batch))
            np.savez(path, embeddings=found[0], scores=found[1])
        kept = np.load(path)
        embeddings.append(kept["embeddings"])
        scores.append(kept["scores"])
    return np.concatenate(embeddings), np.concatenate(scores).astype(np.float64)


def decided(
    row: Row,
    embeddings: NDArray[np.float32],
    references: NDArray[np.float32],
    scores: Float,
    lengths: Float | None = None,
) -> Decided:
    """Decide pairs as the deployed row does. A Lipschitz bound certifies with the lengths of the raw embeddings."""
    verifier, vote, radius = row.bench.deployed(row.profile), row.profile.voting, np.zeros(len(embeddings))
    if vote is None:
        d = verifier.compare(embeddings, references)
        same = is_same(row.manifest.decision, d).astype(np.int64)
        if lengths is not None:
            radius = certified_radii(row.manifest, d, lengths)
    else:
        votes = _votes(row, embeddings, references)
        radius = vote_radii(vote.draws, vote.sigma, vote.confidence)[votes]
        same = np.where(radius > 0, 2 * votes > vote.draws, _PERSON).astype(np.int64)
    return Decided(np.where(scores > verifier.manifest.alarm, _PERSON, same), radius)


def _votes(row: Row, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.intp]:
    metric, size = row.manifest.decision.metric, row.manifest.output.size
    return (draw_distances(metric, size, embeddings, references) < row.threshold).sum(axis=1)


def calibrated(row: Row, crops: CropSet, genuine: Bools, fmr: float, work: Path) -> Row:
    """The row at the threshold that accepts the share `fmr` of the impostors."""
    embeddings, _ = embedded(row, np.asarray(crops.images), work)
    probes, references = (embeddings[side] for side in crops.index.T)
    d = row.bench.deployed(row.profile).compare(probes, references)[~genuine]
    scale = (
        row.threshold / row.manifest.decision.threshold
    )  # distances of votes are in units of the manifest's threshold
    return row.at(float(np.quantile(d, fmr)) * scale)


def aim(row: Row, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> float:
    """How far beyond the threshold the mean draw must be for the vote to be certain; 0 without a vote."""
    vote = row.profile.voting
    if vote is None:
        return 0.0
    fewest = int(np.flatnonzero(vote_radii(vote.draws, vote.sigma, vote.confidence)[vote.draws // 2 :] > 0)[0])
    spread = draw_distances(row.manifest.decision.metric, row.manifest.output.size, embeddings, references).std(axis=1)
    return float(np.median(spread) * norm.ppf(0.5 + fewest / vote.draws))


def fell(
    row: Row,
    crops: CropSet,
    rows: NDArray[np.intp],
    enrolled: NDArray[np.float32],
    attack: Apgd | Pgd,
    shift: float,
    work: Path,
    *,
    sees_detector: bool = True,
) -> Bools:
    """Which of the pairs `rows`, all of one goal, fall to an attack that aims `shift` beyond the threshold."""
    found, dodging = [], crops.pairs[rows[0]].genuine if len(rows) else False
    aimed = row.at(row.threshold + (shift if dodging else -shift))
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        names = [crops.pairs[i].id for i in chunk]
        content = {
            "row": [row.key, row.threshold, row.draws],
            "attack": [repr(attack), attack_code(attack), shift, sees_detector],
            "pairs": names,
        }
        path = work / f"{artifact_name(content)}.json"
        if not path.exists():
            bench, references = aimed.bench, enrolled[crops.index[chunk, 1]]
            alarm = bench.deployed(aimed.profile).manifest.alarm if sees_detector else np.inf
            task = make_task(attack.name, crops, chunk, references, aimed.manifest.decision, 0, alarm)
            probes = attack.craft(bench.white_box(aimed.profile), task).probes8
            judge = row.bench.deployed(row.profile)
            same = decided(row, *_with(judge.embed_and_score(to_unit(probes)), references)).same
            write_bytes(path, json.dumps((same == (0 if dodging else 1)).tolist()).encode())
            goal = ("dodging" if dodging else "impersonation") + ("" if sees_detector else ", blind")
            done = f"L2 {attack.epsilon:.2f}: {start + len(chunk)} of {len(rows)}"
            print(f"{_name(row)}, {attack.name}, {goal}, {done}", flush=True)
        found.append(np.array(json.loads(path.read_text()), np.bool_))
    return np.concatenate(found) if found else np.zeros(0, np.bool_)


def _with(
    found: tuple[NDArray[np.float32], NDArray[np.float32]], references: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], Float]:
    return found[0], references, found[1].astype(np.float64)


def in_ball(epsilon: float, steps: int, restarts: int) -> tuple[Apgd | Pgd, ...]:
    """The attacks in an L2 ball of radius `epsilon`."""
    return (
        Apgd("apgd-l2", norm="l2", epsilon=epsilon, steps=steps, restarts=restarts),
        # The authors' rule for the step: 2.5 times the radius over the number of steps.
        Pgd("pgd-l2", norm="l2", epsilon=epsilon, step=2.5 * epsilon / steps, steps=steps, restarts=restarts),
    )


def latency(row: Row) -> float:
    """The median seconds of one crop."""
    spec, verifier = row.manifest.input, row.bench.deployed(row.profile)
    crop, times = np.full((1, spec.height, spec.width, 3), 0.5, np.float32), []
    for _ in range(_TURNS):
        start = time.perf_counter()
        verifier.embed(crop)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


@dataclass(frozen=True)
class Measured:
    """The cells of one row, and the rates that a front is about: FNMR, to a person, and ASR in the smallest budget."""

    cells: list[str]
    rates: tuple[float, ...]

    def is_on_front(self, others: Sequence[Measured]) -> bool:
        """Whether no other row is at least as good in all rates and better in one."""
        pairs = [tuple(zip(other.rates, self.rates, strict=True)) for other in others]
        return not any(all(a <= b for a, b in rates) and any(a < b for a, b in rates) for rates in pairs)


def measured(row: Row, folds: str, args: argparse.Namespace) -> Measured:
    """Measure one row, whose threshold is chosen on these folds."""
    row = calibrated(row, *crops_of(row.manifest, args.pairs, folds, args.calibration_limit), args.fmr, args.work)
    crops, genuine = crops_of(row.manifest, args.pairs, args.folds, args.limit)
    embeddings, scores = embedded(row, np.asarray(crops.images), args.work)
    probes, references = (embeddings[side] for side in crops.index.T)
    bounded = row.profile.empty and row.manifest.output.lipschitz is not None
    lengths = row.bench.raw_lengths(to_unit(np.asarray(crops.images)))[crops.index[:, 0]] if bounded else None
    clean = decided(row, probes, references, scores[crops.index[:, 0]], lengths)
    right, shift = clean.same == genuine, aim(row, probes, references)
    everyone, erred = np.ones(len(genuine), np.bool_), ~right & (clean.same != _PERSON)
    fnmr, fmr, person = _share(erred, genuine), _share(erred, ~genuine), _share(clean.same == _PERSON, everyone)
    cells, asr = [_name(row), f"{row.threshold:.3f}", *map(whole_percent, (fnmr, fmr, person))], []
    certified = row.profile.vote is not None or bounded
    cells += [whole_percent(_share(right & (clean.radius >= r), everyone)) if certified else "-" for r in RADII]
    values = row.manifest.input.height * row.manifest.input.width * 3
    standing = right.copy()
    for budget in args.budgets:
        attacks = in_ball(balls(budget, values).l2, args.steps, args.restarts)
        # What fell to one attack, or within a smaller budget, is not attacked again.
        # As if there were no detector costs half as much, so that comes first.
        for sees, attack in product((True,) if row.profile.detector is None else (False, True), attacks):
            for kind in (True, False):
                left = np.flatnonzero(standing & (genuine == kind))
                standing[left] = ~fell(row, crops, left, embeddings, attack, shift, args.work, sees_detector=sees)
        asr.append(Rate(int((right & ~standing).sum()), int(right.sum())))
    cells += [*map(whole_percent, asr), f"{1000 * latency(row):.0f}", f"{len(row.file) / 1e6:.1f}"]
    return Measured(cells, tuple(rate.value or 0.0 for rate in (fnmr, person, asr[0])))


def _share(hit: Bools, of: Bools) -> Rate:
    return Rate(int((hit & of).sum()), int(of.sum()))


def _name(row: Row) -> str:
    return f"{row.manifest.name}, {row.profile.name}"


def as_html(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A page with the table alone."""
    lines = [_line("th", head), *(_line("td", row) for row in rows)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>What holds</title><style>'
        "body{font:15px sans-serif;margin:2em}td,th{padding:.3em .7em;text-align:right}td{white-space:nowrap}"
        "td:first-child,th:first-child{text-align:left}tr+tr{border-top:1px solid}table{border-collapse:collapse}"
        f"</style></head><body><h1>What holds</h1><p>{escaped(title)}</p>"
        f"<table>{''.join(lines)}</table></body></html>\n"
    )


def _line(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells) + "</tr>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument(
        "--rows", default=ROWS, help="VERIFIER:PROFILE or VERIFIER:PROFILE:FOLD+FOLD, separated by commas"
    )
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--calibration", default="1,2,3,4,5,6", help="folds that thresholds are chosen on")
    parser.add_argument("--calibration-limit", type=int, default=200)
    parser.add_argument("--fmr", type=float, default=0.05)
    parser.add_argument("--budgets", default="2.15,8", help="RMS in 1/255")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--draws", type=int, default=8, help="draws that gradients of a vote are averaged over")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--html", type=Path, help="also write the table as a page")
    args = parser.parse_args()
    args.budgets = sorted(float(budget) for budget in args.budgets.split(","))
    args.work.mkdir(parents=True, exist_ok=True)
    head = [
        "verifier, profile",
        "threshold",
        "FNMR %",
        "FMR %",
        "to a person %",
        *(f"certified at {r:g} %" for r in RADII),
    ]
    head += [*(f"ASR % within RMS {b:g}/255" for b in args.budgets), "ms", "MB", "front"]
    found: list[Measured] = []
    elsewhere = ""
    for name in args.rows.split(","):
        verifier, profile, *folds = name.split(":")
        chosen_on = folds[0].replace("+", ",") if folds else args.calibration
        elsewhere += f"; of {verifier}, {profile}: folds {chosen_on}" if folds else ""
        found.append(measured(Row(find_manifest(verifier), find_profile(profile), args.draws), chosen_on, args))
        print(f"| {' | '.join(found[-1].cells)} |", flush=True)
    rows = [[*one.cells, "yes" if one.is_on_front(found) else ""] for one in found]
    title = (
        f"{args.limit} pairs of folds {args.folds}; thresholds at FMR {100 * args.fmr:g} % of {args.calibration_limit} "
        f"pairs of folds {args.calibration}{elsewhere}; APGD and PGD, {args.steps} steps, {args.restarts} start(s), "
        f"{args.draws} draws; 95 % Wilson intervals"
    )
    print(f"\n{title}\n\n| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")
    if args.html:
        write_bytes(args.html, as_html(title, head, rows).encode())


if __name__ == "__main__":
    main()
