"""The workbench of a worker: it opens packed jobs of every kind, and runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import Job, Parcel, unpack_job
from toolkit.audit.crafting.learn import learn_job
from toolkit.audit.crafting.series import craft_job
from toolkit.audit.embedding import embed_job
from toolkit.audit.parity import parity_job
from toolkit.audit.replaying.certify import certify_job
from toolkit.audit.replaying.gradients import gradient_job
from toolkit.audit.replaying.natural import natural_job
from toolkit.audit.replaying.reruns import rerun_job
from toolkit.errors import InputError, UnavailableError
from toolkit.threads import one_thread_a_product
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution

# Each kind of job, and how it is read from its parcel and the seed of the audit.
_KINDS: dict[str, Callable[[Parcel, int], Job]] = {
    "embed": embed_job,
    "parity": parity_job,
    "craft": craft_job,
    "learn": learn_job,
    "certify": certify_job,
    "natural": natural_job,
    "gradients": gradient_job,
    "rerun": rerun_job,
}


class Workbench:
    """Runs packed jobs in a worker, and keeps each bench for the next job."""

    def __init__(self) -> None:
        """Start without a bench."""
        self._benches: dict[str, Bench] = {}

    def run(self, packed: bytes) -> bytes:
        """Run a job from `pack_job`; see `Job.run`.

        Raises:
            UnavailableError: this worker lacks a file or has another one than the audit, or other code.
            InputError: the job cannot be done.
        """
        header, parcel = unpack_job(packed)
        try:
            bench = self._bench(header)
            job = _KINDS[parcel.kind](parcel, bench.seed)
        except InputError as error:
            # It must end the audit: the same job can be done on a worker that has what the audit has.
            raise UnavailableError(str(error)) from error
        with one_thread_a_product():
            return job.run(bench)

    def _bench(self, header: dict[str, Any]) -> Bench:
        key = json.dumps([header["model"], header["execution"], header["seed"]])
        if key not in self._benches:
            described, model, digest, reading = header["model"]
            manifest = replace(read_manifest(Path(described)), model=Path(model))
            if model_sha256(manifest.model) != digest:
                raise InputError(f"{manifest.model}: this worker has a different file than the audit; copy it here")
            if manifest.reading != reading:
                raise InputError(f"{manifest.path}: this worker has a different manifest than the audit; copy it here")
            self._benches[key] = Bench(manifest, Execution(*header["execution"]), header["seed"])
        return self._benches[key]
