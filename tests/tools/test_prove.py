"""tools/prove without its programs: the list of breakages is that of the sources, seeds and reports are read.

The rows themselves are the C++ tests; here a stand-in program takes their place.
"""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from proof import command, mutations, programs, rows  # noqa: E402

FAKE = """#!/bin/sh
for argument in "$@"; do case $argument in --gtest_output=json:*) report=${argument#--gtest_output=json:};; esac; done
cp "$(dirname "$0")/report.json" "$report"
echo "[ RUN      ] A.b"
echo "failure, seed 1042, scale $TENSORSHELF_TEST_SCALE, from $TENSORSHELF_TEST_SEED"
exit $(cat "$(dirname "$0")/status")
"""


@pytest.fixture
def build(tmp_path):
    folder = (tmp_path / programs.PROGRAMS["store_tests"]).parent
    folder.mkdir(parents=True)
    program = tmp_path / programs.PROGRAMS["store_tests"]
    program.write_text(FAKE)
    program.chmod(0o755)

    def make(status, cases):
        suite = {"name": "A", "testsuite": cases}
        (folder / "report.json").write_text(json.dumps({"testsuites": [suite]}))
        (folder / "status").write_text(str(status))
        return tmp_path

    return make


def test_each_breakage_is_listed_and_in_the_sources():
    assert mutations.names_in_sources() == {mutation.name for mutation in mutations.MUTATIONS}
    assert len(mutations.MUTATIONS) >= 20


def test_each_invariant_and_step_has_a_breakage():
    rules = {word.strip(":") for mutation in mutations.MUTATIONS for word in mutation.rule.split()}
    assert {f"I{number}" for number in range(1, 11)} <= rules
    assert {f"C{number}" for number in range(1, 6)} <= rules
    assert {f"O{number}" for number in range(1, 7)} <= rules


def test_rows_are_numbered():
    assert [row.number for row in rows.ROWS] == list(range(1, 18))


def test_a_run_counts_trials_and_tells_seeds(build):
    cases = [
        {"name": "b", "result": "COMPLETED", "tried": "500", "seed": "7"},
        {"name": "c", "result": "COMPLETED"},
        {"name": "d", "result": "SKIPPED"},
    ]
    outcome = programs.run_program(build(0, cases), "store_tests", "A.*", scale=2, seed=9)
    assert (outcome.tests, outcome.tried, outcome.failed, outcome.skipped) == (2, 501, [], ["A.d"])
    assert outcome.seeds == {"7"}
    assert "scale 2, from 9" in outcome.output


def test_a_failure_names_the_seed_to_begin_with(build, capsys):
    cases = [{"name": "b", "result": "COMPLETED", "failures": [{"failure": "x"}]}]
    outcome = programs.run_program(build(1, cases), "store_tests", "A.*")
    assert outcome.failed == ["A.b"]
    command.report(rows.ROWS[3], outcome, "")
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "tools/prove --replay 4:1042" in printed


@pytest.mark.parametrize("status, cases", [(139, [{"name": "b", "result": "COMPLETED"}]), (0, [])])
def test_a_crash_and_an_empty_filter_are_failures(build, status, cases):
    assert programs.run_program(build(status, cases), "store_tests", "A.*").failed


def test_seeds_and_times_of_the_command_line():
    assert command.parse_seed("4:1042") == (4, 1042)
    assert command.parse_seed("1042") == (None, 1042)
    assert command.parse_duration("90s") == 90
    assert command.parse_duration("1h") == 3600
    ended = subprocess.run([ROOT / "tools" / "prove", "99"], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
