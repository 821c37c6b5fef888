"""Runs one test program with a filter, a size and a seed, and reads what it tried from its JSON."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Where each test program lies in a build folder.
PROGRAMS = {
    "engine_tests": "tests/engine/engine_tests",
    "index_tests": "tests/index/index_tests",
    "store_tests": "tests/store/store_tests",
    "memory_tests": "tests/store/memory_tests",
    "tools_tests": "tests/tools/tools_tests",
}


@dataclasses.dataclass
class Outcome:
    """What one run of a program came to. `tried` counts trials where tests tell them, and else tests."""

    tests: int = 0
    tried: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    seeds: set[str] = dataclasses.field(default_factory=set)
    output: str = ""
    seconds: float = 0.0

    def add(self, other: "Outcome") -> None:
        self.tests += other.tests
        self.tried += other.tried
        self.failed += other.failed
        self.skipped += other.skipped
        self.seeds |= other.seeds
        self.output += other.output
        self.seconds += other.seconds

    def failing_seeds(self) -> list[str]:
        """Seeds that failure messages name, in order, each once."""
        return list(dict.fromkeys(re.findall(r"\bseed (\d+)", self.output))) if self.failed else []


def environment(scale: float | None, seed: int | None, mutation: str | None = None) -> dict[str, str]:
    """The variables that tests/testing/scale.h and engine/foundation/mutation.h read."""
    env = dict(os.environ)
    for name, value in (
        ("TENSORSHELF_TEST_SCALE", scale),
        ("TENSORSHELF_TEST_SEED", seed),
        ("TENSORSHELF_MUTATION", mutation),
    ):
        env.pop(name, None)
        if value is not None:
            env[name] = str(value)
    return env


def run_bounded(command: list[str], env: dict[str, str], folder: str, timeout_s: float) -> tuple[int | None, str]:
    """Exit status, None when the time was over, and what was printed. Ends what the command started, too."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=folder, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=timeout_s)
            return process.returncode, printed.decode(errors="replace")
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            return None, printed.decode(errors="replace")


def read_report(path: pathlib.Path, outcome: Outcome) -> bool:
    """Adds the cases of a JSON report; False when the program did not get so far as to write one."""
    if not path.exists():
        return False
    for suite in json.loads(path.read_text())["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("result") == "SKIPPED":
                outcome.skipped.append(name)
                continue
            outcome.tests += 1
            outcome.tried += int(case.get("tried", 1))
            if "seed" in case and case["seed"] != "0":
                outcome.seeds.add(case["seed"])
            if case.get("failures"):
                outcome.failed.append(name)
    return True


def last_test(printed: str) -> str:
    begun = re.findall(r"\[ RUN      \] (\S+)", printed)
    return begun[-1] if begun else "(no test)"


def run_program(
    build: pathlib.Path,
    program: str,
    test_filter: str,
    *,
    scale: float | None = None,
    seed: int | None = None,
    mutation: str | None = None,
    timeout_s: float = 600,
    fail_fast: bool = False,
) -> Outcome:
    outcome = Outcome()
    binary = build / PROGRAMS[program]
    if not binary.exists():
        outcome.failed.append(f"{program} is not built in {build}")
        return outcome
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tensorshelf_prove.") as folder:
        report = pathlib.Path(folder) / "report.json"
        command = [str(binary), f"--gtest_filter={test_filter}", f"--gtest_output=json:{report}", "--gtest_brief=0"]
        if fail_fast:
            command.append("--gtest_fail_fast")
        status, outcome.output = run_bounded(command, environment(scale, seed, mutation), folder, timeout_s)
        whole = read_report(report, outcome)
    outcome.seconds = time.monotonic() - begun
    if status is None:
        outcome.failed.append(f"{last_test(outcome.output)} (not over after {timeout_s:.0f} s)")
    elif status != 0 and not outcome.failed:
        outcome.failed.append(f"{last_test(outcome.output)} (ended with {status})")
    elif not whole or outcome.tests + len(outcome.skipped) == 0:
        outcome.failed.append(f"{program}: no test matches {test_filter}")
    return outcome
