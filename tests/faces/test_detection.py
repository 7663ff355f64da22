"""Tests of face detection: MTCNN, its cache, and several processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.faces import detection
from toolkit.faces.alignment import LandmarkFinder, read_landmarks


@pytest.mark.shared
def test_mtcnn_finds_what_the_published_landmarks_say_and_is_cached(shared: Path, tmp_path: Path) -> None:
    known = read_landmarks(shared / "lfw" / "landmarks.csv")
    name = "Aaron_Eckhart/Aaron_Eckhart_0001.jpg"
    root = tmp_path / "pairs" / "root"
    (root / "Aaron_Eckhart").mkdir(parents=True)
    (root / name).write_bytes((shared / "lfw" / "images" / name).read_bytes())
    found = LandmarkFinder(root, tmp_path / "cache").points(name)
    expected = known[name]
    assert found is not None
    assert expected is not None
    assert np.median(np.abs(found - expected)) < 3
    (cached,) = (tmp_path / "cache" / "landmarks").iterdir()
    again = LandmarkFinder(root, tmp_path / "cache")
    again._detector._detect = None  # type: ignore[method-assign,assignment]
    np.testing.assert_array_equal(again.points(name), found)
    cached.write_text("damaged")
    np.testing.assert_array_equal(LandmarkFinder(root, tmp_path / "cache").points(name), found)


@pytest.fixture
def photographs(shared: Path, tmp_path: Path) -> list[str]:
    """Six photographs with a face, and one that is cut off."""
    images = sorted((shared / "lfw" / "images").rglob("*.jpg"))[:6]
    for number, image in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(image.read_bytes())
    (tmp_path / "6.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:2000])
    return [f"{number}.jpg" for number in range(7)]


@pytest.mark.shared
@pytest.mark.parametrize("killed", [False, True])
def test_processes_detect_what_one_does_and_what_they_leave_out_is_done_later(
    tmp_path: Path, photographs: list[str], monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    monkeypatch.setattr(detection, "cores", lambda: 2)
    monkeypatch.setattr(detection, "_WORTH_A_PROCESS", 2)
    started: list[subprocess.Popen[bytes]] = []

    def start(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        process = start_module(*given, **named)
        if killed and not started:
            process.kill()
        started.append(process)
        return process

    start_module = detection.start_module
    monkeypatch.setattr(detection, "start_module", start)
    seen: list[tuple[int, int]] = []
    finder = LandmarkFinder(tmp_path, tmp_path / "together")
    finder.look_ahead(photographs, lambda *done: seen.append(done))
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
    # The first process has the photos 0, 2, 4 and 6, the second the others.
    done = 3 if killed else 7
    assert seen == [(number, 7) for number in range(1, done + 1)]
    assert len(list((tmp_path / "together" / "landmarks").iterdir())) == (3 if killed else 6)
    alone = LandmarkFinder(tmp_path, tmp_path / "alone")
    for name in photographs[:6]:
        expected = alone.points(name)
        assert expected is not None
        np.testing.assert_array_equal(finder.points(name), expected)
    with pytest.raises(InputError, match=r"6\.jpg"):
        finder.points("6.jpg")
    finder.look_ahead(photographs)
    assert len(started) == 2, "nothing is left that is worth a process"


def test_a_few_photographs_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "cores", lambda: 64)
    monkeypatch.setattr(detection, "start_module", None)
    detection.detect_together([tmp_path / "one.jpg"] * 99, tmp_path, lambda: None)
