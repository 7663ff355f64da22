"""Help that teaches: every command has examples that its own parser takes, and names complete in a shell."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from toolkit.completion import attack_names, complete_last, model_names, profile_names
from toolkit.profiles.profile import shipped_profiles
from toolkit.registry import discover

ROOT = Path(__file__).resolve().parents[1]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    command = typer.main.get_command(cli.app) if command is None else command
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from commands(below, (*path, name))


def examples(command: Any) -> list[list[str]]:
    lines = inspect.cleandoc(command.help or "").partition("Examples[/bold]")[2].splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids="-".join)
def test_every_command_has_examples_that_it_parses(path: tuple[str, ...]) -> None:
    command = dict(commands())[path]
    found = examples(command)
    assert found, f"{' '.join(path)} has no example in its help"
    for words in found:
        assert tuple(words[: 1 + len(path)]) == ("sixpixels", *path)
        command.make_context(path[-1], words[1 + len(path) :]).close()


def test_the_examples_at_the_top_are_commands_that_parse() -> None:
    top = typer.main.get_command(cli.app)
    for words in examples(top):
        name, command, rest = top.resolve_command(top.make_context("sixpixels", words[1:]), words[1:])  # type: ignore[attr-defined]
        command.make_context(name, rest).close()


def complete(words: str) -> list[str]:
    """What bash is told after these words; after a space, the next word is begun."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['sixpixels']; import cli; cli.main()"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={
            **os.environ, "_SIXPIXELS_COMPLETE": "complete_bash", "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sixpixels audit --profiles ", list(shipped_profiles())),
        ("sixpixels audit --profiles none,me", ["none,mean10", "none,mean3", "none,mean5", "none,median3"]),
        ("sixpixels audit face", ["facenet-lipschitz", "facenet-mini", "facenet-noise", "facenet-robust"]),
        ("sixpixels evaluate dl", ["dlib-resnet"]),
        ("sixpixels harden --profile bal", ["balanced"]),
        ("sixpixels audit --attacks fgsm,deepfool-", ["fgsm,deepfool-linf"]),
        ("sixpixels doc", ["doctor"]),
    ],
)
def test_a_shell_completes_names(words: str, expected: list[str]) -> None:
    assert sorted(complete(words)) == sorted(expected)


def test_names_that_complete_are_those_that_exist() -> None:
    assert attack_names() == list(discover("attack"))
    assert profile_names() == list(shipped_profiles())
    assert {"facenet-mini", "dlib-resnet"} <= set(model_names())
    assert complete_last("pgd,", ["fgsm", "pgd"]) == ["pgd,fgsm"], "a name is not offered twice"


def test_completing_loads_nothing_heavy() -> None:
    code = (
        "import sys, cli; from toolkit import completion as c; c.model_names(); c.profile_names(); c.attack_names(); "
        "print([m for m in ('numpy', 'tensorflow', 'onnxruntime', 'scipy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
