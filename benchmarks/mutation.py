"""How many faults that are put into the code the tests notice: mutation testing with mutmut.

pip install mutmut
python benchmarks/mutation.py statistics risk attacks audit

Every target has its own files, and tests that are fast enough to run for each of hundreds of mutants; the slow ones run
for what these leave. Left out of the score is what changes nothing: another wording, and the mutants that
`mutation_survivors.toml` calls "same", each with the reason. The exit status is 1 where fewer than 90 % of the others
are noticed, or a survivor has no reason there.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutation"
SURVIVORS = Path(__file__).with_name("mutation_survivors.toml")
LEAST = 0.9
TESTS_FAILED = 1  # the exit status of pytest


@dataclass(frozen=True)
class Target:
    """Files that are changed, tests that must notice it, and tests among these that take too long for every mutant."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


TARGETS = {
    "statistics": Target(
        ("toolkit/statistics/*.py",),
        ("tests/statistics",),
        ("tests/statistics/test_bootstrap.py::test_the_band_covers_the_truth_as_often_as_it_says",),
    ),
    "risk": Target(
        ("toolkit/risk/*.py",),
        ("tests/risk",),
        (
            "tests/risk/test_gate.py::test_more_successes_never_help",
            "tests/risk/test_gate.py::test_testing_less_never_helps",
            "tests/risk/test_gate.py::test_the_command_passes_a_whole_run_alone",
            "tests/risk/test_gate.py::test_the_command_reads_policies_waivers_and_baselines",
            "tests/risk/test_rate.py::test_all_pairs_fallen_is_at_least_high_under_every_policy",
            "tests/risk/test_rate.py::test_fewer_queries_are_never_less_severe",
            "tests/risk/test_rate.py::test_more_successes_are_never_less_severe",
            "tests/risk/test_rate.py::test_the_same_successes_with_less_access_are_never_less_severe",
            "tests/risk/test_rate.py::test_the_scale_never_falls_with_more_successes_or_easier_access",
            "tests/risk/test_rate.py::test_too_little_evidence_is_never_low",
            "tests/risk/test_real_gate.py",
            "tests/risk/test_regressions.py::test_the_power_is_that_of_simulated_regressions",
        ),
    ),
    "attacks": Target(
        ("toolkit/attacks/base.py", "toolkit/attacks/ladder.py"),
        ("tests/attacks/test_base.py", "tests/attacks/test_ladder.py", "tests/attacks/test_attacks.py"),
    ),
    "audit": Target(
        (
            "toolkit/audit/replaying/sanity.py",
            "toolkit/audit/replaying/certify.py",
            "toolkit/audit/replaying/detection.py",
            "toolkit/audit/results/assessment.py",
        ),
        (
            "tests/audit/replaying/test_certify.py",
            "tests/audit/replaying/test_detection.py",
            "tests/audit/replaying/test_sanity.py",
            "tests/audit/results/test_assessment.py",
            "tests/audit/workers/test_workers.py::test_a_packed_job_is_the_same_job",
        ),
        (
            "tests/audit/replaying/test_certify.py::test_a_profile_with_a_vote_is_certified_and_attacked_as_it_is_deployed",
            "tests/audit/replaying/test_sanity.py::test_gradients_of_another_model_are_noticed",
            "tests/audit/replaying/test_sanity.py::test_masked_gradients_are_noticed",
            "tests/audit/replaying/test_sanity.py::test_sound_attacks_on_a_sound_model_pass",
            "tests/audit/replaying/test_sanity.py::test_an_attack_that_ended_too_early_is_noticed",
            "tests/audit/replaying/test_sanity.py::test_a_gradient_that_is_none_or_not_a_number_takes_nothing_else_along",
            "tests/audit/replaying/test_sanity.py::test_a_filter_that_is_half_as_strong_in_tensorflow_is_noticed",
            "tests/audit/replaying/test_certify.py::test_no_attack_within_the_radius_changes_the_vote_on_real_faces",
        ),
    ),
}

CONFIG = """
[tool.mutmut]
source_paths = ["toolkit"]
only_mutate = {files}
also_copy = ["cli.py", "models", "profiles"]
# What is raised is tested; how it is worded is not.
do_not_mutate_patterns = ['^\\s*raise ']
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = {arguments}
# ONNX Runtime and TensorFlow start threads, and what has threads is never forked.
process_isolation = "forkserver"
# A mutant is slow, not endless, where others use the machine.
timeout_constant = 5.0
"""


@dataclass(frozen=True)
class Mutant:
    """One change: where, the lines that it takes away and puts in, and whether a test noticed it."""

    name: str
    function: str
    before: str
    after: str
    noticed: bool
    worded: bool


@dataclass
class Score:
    """What came of a target."""

    noticed: int = 0
    worded: int = 0
    same: int = 0
    accepted: list[Mutant] = field(default_factory=list)
    new: list[Mutant] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Noticed mutants over all that change something."""
        return self.noticed / max(self.noticed + len(self.accepted) + len(self.new), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--again", action="store_true", help="count the last run's mutants without running any")
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    reasons = {
        (entry["function"], entry["before"], entry["after"]): entry["kind"]
        for entry in tomllib.loads(SURVIVORS.read_text())["survivor"]
    }
    enough = True
    for name in args.targets or TARGETS:
        folder = WORK / name
        if not args.again:
            run(folder, TARGETS[name], args.workers)
            try_long_tests(folder, TARGETS[name], reasons, args.workers)
        score = count(folder, reasons)
        for mutant in score.new:
            print(f"\n{mutant.name}", marked("- ", mutant.before), marked("+ ", mutant.after), sep="\n")
        counted = score.noticed + len(score.accepted) + len(score.new)
        print(
            f"{name}: {score.share:.1%} noticed ({score.noticed} of {counted}); "
            f"{len(score.new)} survivors without a reason, {len(score.accepted)} with one; "
            f"{score.same} that change nothing, {score.worded} of wording"
        )
        enough &= score.share >= LEAST and not score.new
    sys.exit(0 if enough else 1)


def run(folder: Path, target: Target, workers: int) -> None:
    """Mutate a copy of the working tree: nothing of it is left in the tree itself."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in ("toolkit", "tests", "models", "profiles", "cli.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, folder / part)
    arguments = ["-n", "0", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
    arguments += [f"--deselect={test}" for test in target.without]
    config = CONFIG.format(
        files=json.dumps(target.files), tests=json.dumps(target.tests), arguments=json.dumps(arguments)
    )
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + config)
    # Mutants are many small processes: threads of linear algebra would only be in each other's way.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(workers)]
    subprocess.run(command, cwd=folder, env=environment, check=True)  # noqa: S603


def try_long_tests(folder: Path, target: Target, reasons: dict[tuple[str, str, str], str], workers: int) -> None:
    """Run the tests that take too long for every mutant on those that the others do not notice."""
    left = count(folder, reasons).new if target.without else []
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *target.without]

    def status(mutant: str) -> int:
        environment = os.environ | {"MUTANT_UNDER_TEST": mutant}
        done = subprocess.run(  # noqa: S603 - the tests of this target
            command, cwd=folder / "mutants", env=environment, stdout=subprocess.DEVNULL, check=False
        )
        return done.returncode

    # What fails without a mutant would notice everything.
    if left and status("") != 0:
        sys.exit(f"the slow tests fail without a mutant: {' '.join(command)}")
    names = [mutant.name for mutant in left]
    with ThreadPoolExecutor(workers) as threads:
        found = {name for name, code in zip(names, threads.map(status, names), strict=True) if code == TESTS_FAILED}
    for meta in (folder / "mutants").rglob("*.meta"):
        content = json.loads(meta.read_text())
        content["exit_code_by_key"] |= {name: TESTS_FAILED for name in content["exit_code_by_key"] if name in found}
        meta.write_text(json.dumps(content))


def count(folder: Path, reasons: dict[tuple[str, str, str], str]) -> Score:
    score = Score()
    for mutant in mutants(folder):
        kind = reasons.get((mutant.function, mutant.before, mutant.after))
        if mutant.noticed:
            score.noticed += 1
        elif mutant.worded:
            score.worded += 1
        elif kind == "same":
            score.same += 1
        else:
            (score.new if kind is None else score.accepted).append(mutant)
    return score


def mutants(folder: Path) -> Iterator[Mutant]:
    """All mutants of a run, read from what mutmut leaves: the mutated functions, and the exit status for each."""
    for meta in sorted((folder / "mutants").rglob("*.meta")):
        statuses = json.loads(meta.read_text())["exit_code_by_key"]
        if not statuses:
            continue
        source = meta.with_suffix("").read_text()
        functions = {f.name: f for f in ast.walk(ast.parse(source)) if isinstance(f, ast.FunctionDef)}
        lines = source.splitlines()
        for name, status in statuses.items():
            module, _, function = name.rpartition(".")
            original = functions[function.rpartition("__mutmut_")[0] + "__mutmut_orig"]
            changed = functions[function]
            before, after = difference(text(lines, original), text(lines, changed))
            # 33: no test runs the function; 0: all pass.
            noticed = status not in {0, 33, None}
            worded = wordless(original) == wordless(changed)
            of = function.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
            yield Mutant(name, f"{module}.{of}", before, after, noticed, worded)


def text(lines: list[str], function: ast.FunctionDef) -> list[str]:
    """The lines of a function without its name."""
    signature = lines[function.lineno - 1].replace(function.name, "", 1)
    return [line.strip() for line in [signature, *lines[function.lineno : function.end_lineno]]]


def difference(before: list[str], after: list[str]) -> tuple[str, str]:
    found = [line for line in difflib.ndiff(before, after) if line[:2] in {"- ", "+ "}]
    return tuple("\n".join(line[2:] for line in found if line[:2] == sign) for sign in ("- ", "+ "))  # type: ignore[return-value]


def wordless(function: ast.FunctionDef) -> str:
    """The function with every text of more than one word made the same."""

    class Worded(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Constant("words") if isinstance(node.value, str) and " " in node.value else node

        def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
            texts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
            return ast.Constant("words") if any(" " in text for text in texts) else node

    whole = Worded().visit(ast.parse(ast.unparse(function)).body[0])
    whole.name = ""
    return ast.dump(whole)


def marked(mark: str, lines: str) -> str:
    return "\n".join(f"    {mark}{line}" for line in lines.splitlines())


if __name__ == "__main__":
    main()
