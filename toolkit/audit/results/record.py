"""The record of an audit's request in its run folder. With it, the probes can be found and replayed elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.attacks.base import Attack
from toolkit.audit.crafting.craft import attack_parameters, attack_with
from toolkit.audit.plan import Knowledge
from toolkit.audit.request import Request
from toolkit.documents import from_plain
from toolkit.errors import InputError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair, PairSet, embedded_pairs, load_pairs
from toolkit.files import bundled, checked_path, inside, write_bytes
from toolkit.plain import parse_json, read_limited
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers.manifest import Manifest, find_manifest, with_threshold
from toolkit.verifiers.onnx_file import verifier_sha256
from toolkit.verifiers.runtime import Execution

SCHEMA_VERSION = 1
_FILE = "request.json"
_LARGEST = 1 << 25
_REMOTE = "remote:"


@dataclass(frozen=True)
class _Content:
    """The content of `request.json`; see `write_record`."""

    schema: int
    model: str
    model_sha256: str
    threshold: float
    root: str | None
    source: str
    pairs: tuple[tuple[str, str, bool], ...]
    attacks: tuple[tuple[str, dict[str, object]], ...]
    profiles: tuple[tuple[str, str], ...]
    knowledge: tuple[Knowledge, ...]
    seed: int
    group: int | None


@dataclass(frozen=True)
class Record:
    """A recorded request: like `Request`, but with pairs instead of their crops."""

    folder: Path
    manifest: Manifest
    pairs: PairSet
    attacks: tuple[Attack, ...]
    profiles: tuple[Profile, ...]
    knowledge: tuple[Knowledge, ...]
    seed: int

    def request(self, crops: CropSet, execution: Execution) -> Request:
        """Make a request that finds the probes of the run. It has no certificates, because they are not recorded.

        Args:
            crops: the crops of `pairs`.
            execution: how ONNX Runtime runs the verifier.
        """
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

    Its keys are schema, model (a shipped name or an absolute path; for a service, "remote:" and the path of its
    description), model_sha256, threshold, root (the absolute path of
    the photos, or null for the embedded faces), source, pairs (a list of [probe, reference, genuine]), attacks (a list
    of [name, parameters]), profiles (a list of [name or path, sha256]), knowledge, seed and group.

    Args:
        request: the request.
        folder: the folder of the run.
        root: the folder that the pairs' names are relative to.
        model: the model as the user gave it.
        profiles: the profiles as the user gave them, in the request's order.
    """
    content = {
        "schema": SCHEMA_VERSION,
        "model": _model_text(request, model),
        "model_sha256": verifier_sha256(request.manifest),
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


def _model_text(request: Request, model: str) -> str:
    if request.service is not None:
        return f"{_REMOTE}{request.service.path.resolve()}"
    return model if _is_shipped(model) else str(Path(model).resolve())


def read_record(folder: Path) -> Record:
    """Read a record of `write_record`, and check that the model and the profiles have not changed.

    Raises:
        InputError: there is no finished audit in the folder, the file is damaged, or the model, a profile or an image
            is missing or has changed.
    """
    path = folder / _FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {_FILE}, so it is not the folder of a finished audit; "
            "to finish an audit, give its command again"
        )
    content = _content(path)
    if content.group is not None:
        raise InputError(f"{path}: probes of a group cannot be replayed; audit without --group")
    try:
        return _read(content, path, folder)
    except UsageError as error:
        raise InputError(f"{path}: this installation cannot find what the audit used: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); give the audit's command again") from error


def audited_files(folder: Path) -> tuple[Manifest, tuple[str, ...]]:
    """The verifier of a finished run, and the files of its profiles that are not shipped, as the run recorded them.

    Raises:
        InputError: the record is missing or damaged, or the verifier is no longer there.
    """
    content = _content(folder / _FILE)
    return _find(content, folder), tuple(name for name, _ in content.profiles if name.endswith(".toml"))


def _find(content: _Content, where: Path) -> Manifest:
    if content.model.startswith(_REMOTE):
        raise InputError(f"{where}: this run attacked a service; name a run of a verifier in a file")
    return find_manifest(content.model)


def is_of_nobody(folder: Path) -> bool:
    """Whether a finished run used pairs of the embedded faces, which are not real people, without a group."""
    try:
        content = _content(folder / _FILE)
    except InputError:
        return False
    return content.root is None and content.group is None


def _content(path: Path) -> _Content:
    content = parse_json(read_limited(path, _LARGEST), path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema not in (None, SCHEMA_VERSION):
        raise InputError(f"{path}: schema is {schema!r}, but this version reads {SCHEMA_VERSION}")
    try:
        found: _Content = from_plain(_Content, content, "request")
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); give the audit's command again") from error
    return found


def _read(content: _Content, path: Path, folder: Path) -> Record:
    manifest = _find(content, path)
    if verifier_sha256(manifest) != content.model_sha256:
        raise InputError(f"{path}: {manifest.model} has changed since the audit; restore the audited file")
    profiles = tuple(find_profile(name) for name, _ in content.profiles)
    for profile, (name, digest) in zip(profiles, content.profiles, strict=True):
        if profile.sha256 != digest:
            raise InputError(f"{path}: profile {name} has changed since the audit; restore the old one")
    root = load_pairs(embedded_pairs()).root if content.root is None else checked_path(content.root, str(path))
    pairs = tuple(Pair(probe, reference, genuine) for probe, reference, genuine in content.pairs)
    for pair in pairs:
        for name in (pair.probe, pair.reference):
            if not inside(root, name, str(path)).is_file():
                raise InputError(f"{root / name}: this image, named in {path}, is missing; restore it")
    return Record(
        folder=folder,
        manifest=with_threshold(manifest, content.threshold),
        pairs=PairSet(root, pairs, content.source),
        attacks=tuple(attack_with(name, parameters) for name, parameters in content.attacks),
        profiles=profiles,
        knowledge=content.knowledge,
        seed=content.seed,
    )


def _is_shipped(model: str) -> bool:
    return "/" not in model and (bundled("models") / model / "model.toml").is_file()
