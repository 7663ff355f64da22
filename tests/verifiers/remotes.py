"""A service of a `remote.toml`, and a caller that makes its calls, as an attack uses them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.service import open_service
from toolkit.verifiers.scores import distances


class Time:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@dataclass
class Asked:
    service: Any
    caller: Caller

    def embed(self, crops: Any) -> Any:
        most = self.service.most
        parts = [np.empty((0, self.service.remote.output.size), np.float32)]
        for start in range(0, len(crops), most):
            parts.append(self.caller(partial(self.service.embeddings, crops[start : start + most])))
        return np.concatenate(parts)

    def embed_and_score(self, crops: Any) -> Any:
        return self.embed(crops), np.zeros(len(crops), np.float32)

    def compare(self, probes: Any, references: Any) -> Any:
        if self.service.answers == "embedding":
            return distances(self.service.remote.decision.metric, probes, references)
        pairs = zip(probes, references, strict=True)
        return np.array([self.caller(partial(self.service.compare, *pair)) for pair in pairs])


def connect(path: Path, time_: Time | None = None) -> Asked:
    remote, time_ = read_remote(path), time_ or Time()
    caller = Caller(path.name, remote.limits, np.random.default_rng(0), time_.clock, time_.sleep)
    return Asked(open_service(remote, caller), caller)
