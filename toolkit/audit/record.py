"""What an audit was asked, kept in its run folder, so that its probes can be found again and put elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from toolkit.attacks.base import Attack
from toolkit.audit.craft import attack_parameters
from toolkit.audit.jobs import attack_with
from toolkit.audit.plan import Knowledge
from toolkit.audit.run import Request
from toolkit.errors import InputError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair, PairSet, embedded_pairs, load_pairs
from toolkit.files import bundled, inside, sha256, write_bytes
from toolkit.profiles.profile import Profile, find_profile
from toolkit.registry import choose
from toolkit.verifiers.manifest import Manifest, find_manifest, with_threshold
from toolkit.verifiers.runtime import Execution

SCHEMA_VERSION = 1
_FILE = "request.json"
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Record:
    """A request that was read back: as in `Request`, but with pairs in place of their crops."""

    folder: Path
    manifest: Manifest
    pairs: PairSet
    attacks: tuple[Attack, ...]
    profiles: tuple[Profile, ...]
    knowledge: tuple[Knowledge, ...]
    seed: int

    def request(self, crops: CropSet, execution: Execution) -> Request:
        """What finds its probes again, with the pairs' crops made anew; of certificates nothing is recorded."""
        return Request(
            manifest=self.manifest,
            crops=crops,
            pairs_source=self.pairs.source,
            attacks=self.attacks,
            profiles=self.profiles,
            knowledge=self.knowledge,
            seed=self.seed,
            execution=execution,
        )


def write_record(request: Request, folder: Path, root: Path, model: str, profiles: Sequence[str]) -> None:
    """Write `request.json` into the run folder of a finished audit.

    It has the keys schema, model and root (a name of what is shipped, or an absolute path; root is null for the
    embedded faces), model_sha256, threshold, source, pairs ([probe, reference, genuine] of each), attacks ([name,
    parameters]), profiles ([name or path, sha256]), knowledge, seed and group.

    Args:
        request: what was asked.
        folder: of the run.
        root: what the pairs' names are relative to.
        model: as given by the user.
        profiles: as given by the user, in the request's order.
    """
    content = {
        "schema": SCHEMA_VERSION,
        "model": model if _is_shipped(model) else str(Path(model).resolve()),
        "model_sha256": sha256(request.manifest.model),
        "threshold": request.manifest.decision.threshold,
        "root": None if root.is_relative_to(embedded_pairs()) else str(root.resolve()),
        "source": request.pairs_source,
        "pairs": [[pair.probe, pair.reference, pair.genuine] for pair in request.crops.pairs],
        "attacks": [[attack.name, attack_parameters(attack)] for attack in request.attacks],
        "profiles": [
            [str(Path(name).resolve()) if name.endswith(".toml") else name, profile.sha256]
            for name, profile in zip(profiles, request.profiles, strict=True)
        ],
        "knowledge": request.knowledge,
        "seed": request.seed,
        "group": None if request.crops.gallery is None else len(request.crops.gallery),
    }
    write_bytes(folder / _FILE, (json.dumps(content, indent=1) + "\n").encode())


def read_record(folder: Path) -> Record:
    """Read what `write_record` wrote, and check that model and profiles are still what they were.

    Raises:
        InputError: there is no finished audit in the folder, the file is damaged, or something has changed since.
    """
    path = folder / _FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {_FILE}, so no audit was finished here; "
            "give the audit's command again, it finds its probes"
        )
    try:
        content = _content(path)
        if content["schema"] != SCHEMA_VERSION:
            raise InputError(f"{path}: schema is {content['schema']!r}; this version reads {SCHEMA_VERSION}")
        if content["group"] is not None:
            raise InputError(f"{path}: probes of a group cannot be put on another verifier; audit without --group")
        return _read(content, path, folder)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise InputError(f"{path}: is damaged ({error}); give the audit's command again") from error


def is_of_nobody(folder: Path) -> bool:
    """Whether a finished run says that it is of the embedded faces, which are nobody's, and of no group of them."""
    try:
        content = _content(folder / _FILE)
        return content["root"] is None and content["group"] is None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _content(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: larger than {_LARGEST >> 20} MB; this is no record of an audit")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read(content: dict[str, Any], path: Path, folder: Path) -> Record:
    manifest = find_manifest(content["model"])
    if sha256(manifest.model) != content["model_sha256"]:
        raise InputError(f"{path}: {manifest.model} is not the file that was audited; put that one back")
    profiles = tuple(find_profile(name) for name, _ in content["profiles"])
    for profile, (name, digest) in zip(profiles, content["profiles"], strict=True):
        if profile.sha256 != digest:
            raise InputError(f"{path}: profile {name} has changed since the audit; put the old one back")
    root = load_pairs(embedded_pairs()).root if content["root"] is None else Path(content["root"])
    pairs = tuple(Pair(str(probe), str(reference), genuine is True) for probe, reference, genuine in content["pairs"])
    for pair in pairs:
        for name in (pair.probe, pair.reference):
            if not inside(root, name, str(path)).is_file():
                raise InputError(f"{root / name}: no such image (named in {path}); put it back")
    return Record(
        folder=folder,
        manifest=with_threshold(manifest, float(content["threshold"])),
        pairs=PairSet(root, pairs, str(content["source"])),
        attacks=tuple(attack_with(name, parameters) for name, parameters in content["attacks"]),
        profiles=profiles,
        knowledge=tuple(choose("knowledge", content["knowledge"], {level: level for level in get_args(Knowledge)})),
        seed=int(content["seed"]),
    )


def _is_shipped(model: str) -> bool:
    return "/" not in model and (bundled("models") / model / "model.toml").is_file()
