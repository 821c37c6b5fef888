"""The command line of tools/prove."""

import argparse
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from proof import mutations, programs, soak
from proof.rows import ROWS, SANITIZED, Row

LONG_TIMEOUT_S = 24 * 3600
QUICK_TIMEOUT_S = 900

DESCRIPTION = """\
Runs the rows of the fault catalogue (tests/README.md) at the quick size, or those that are named, and prints one line
a row: what was tried, how many, failures, skips, seed. Exit status 1 if anything failed.
"""
EXAMPLES = """\
examples:
  tools/prove                      all rows, quick sizes
  tools/prove 2 7                  two rows
  tools/prove --long 4             one row at its long size
  tools/prove --replay 4:1042      row 4 again from the seed that a failure told, until the first failure
  tools/prove --mutations          row 17 alone; with names, those breakages
  tools/prove --soak 1h            mixed work, kills and readers, against a model
"""


def parse_seed(text: str) -> tuple[int | None, int]:
    row, _, seed = text.rpartition(":")
    try:
        return (int(row) if row else None), int(seed)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither SEED nor ROW:SEED") from None


def parse_duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 10m or 1h") from None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/prove",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="ROW", help="numbers of rows; with --mutations, names of breakages")
    parser.add_argument("--long", action="store_true", help="the long sizes: hours for some rows")
    parser.add_argument("--seed", type=int, help="begin with this seed instead of the usual ones")
    parser.add_argument(
        "--replay", type=parse_seed, metavar="[ROW:]SEED", help="run again from this seed, stop at a failure"
    )
    parser.add_argument("--mutations", action="store_true", help="the mutation check alone")
    parser.add_argument("--soak", type=parse_duration, metavar="TIME", help="such as 10m or 1h")
    parser.add_argument(
        "--build", type=pathlib.Path, help="build folder with the test programs (default: build/release)"
    )
    parser.add_argument("--no-build", action="store_true", help="take the mutated programs as they are")
    parser.add_argument(
        "-j", "--jobs", type=int, default=mutations.default_jobs(), help="rows at once (default: %(default)s)"
    )
    return parser


def line_of(row: Row, outcome: programs.Outcome, note: str = "") -> str:
    verdict = "FAILED" if outcome.failed else "skipped" if outcome.tests == 0 else "ok"
    seeds = ",".join(sorted(outcome.seeds, key=int)[:3]) + (",..." if len(outcome.seeds) > 3 else "")
    text = f"{row.number:2}  {row.title:46} {outcome.tried:>9} tried  {len(outcome.failed):>2} failed"
    text += f"  {len(outcome.skipped):>2} skipped  seed {seeds or '-':24} {outcome.seconds:6.0f} s  {verdict}"
    return text + (f"  ({note})" if note else "")


def run_sanitized() -> tuple[programs.Outcome, str]:
    outcome = programs.Outcome()
    missing = []
    for sanitizer, check in SANITIZED:
        build = programs.ROOT / "build" / sanitizer
        if not (build / programs.PROGRAMS[check.program]).exists():
            missing.append(f"{sanitizer}/{check.program}")
            outcome.skipped.append(check.tests)
            continue
        outcome.add(programs.run_program(build, check.program, check.tests, timeout_s=QUICK_TIMEOUT_S))
    note = f"not built: {', '.join(missing)}; tools/test --only asan --only tsan" if missing else ""
    return outcome, note


def run_row(
    row: Row, build: pathlib.Path, long: bool, seed: int | None, fail_fast: bool
) -> tuple[programs.Outcome, str]:
    if row.number == 11:
        return run_sanitized()
    outcome = programs.Outcome()
    for check in row.checks:
        outcome.add(
            programs.run_program(
                build,
                check.program,
                check.tests,
                scale=check.long if long else check.quick,
                seed=seed,
                timeout_s=LONG_TIMEOUT_S if long else QUICK_TIMEOUT_S,
                fail_fast=fail_fast,
            )
        )
    return outcome, ""


def report(row: Row, outcome: programs.Outcome, note: str) -> None:
    print(line_of(row, outcome, note), flush=True)
    for name in outcome.failed:
        print(f"      failed: {name}")
    if outcome.failed:
        for seed in outcome.failing_seeds()[:3]:
            print(f"      again: tools/prove --replay {row.number}:{seed}")
        tail = "\n".join("      | " + text for text in outcome.output.strip().splitlines()[-25:])
        print(tail, flush=True)


def run_mutations(names: list[str], jobs: int, no_build: bool) -> int:
    if not no_build:
        print(f"building {mutations.BUILD.relative_to(programs.ROOT)}", flush=True)
        problem = mutations.build(jobs)
        if problem:
            print(problem)
            return 1
    begun = time.monotonic()
    tried, wrong = mutations.run(mutations.BUILD, jobs, names, lambda text: print(text, flush=True))
    caught = tried - len([text for text in wrong if text.endswith("was missed")])
    verdict = "FAILED" if wrong else "ok"
    print(f"17  deliberate breakages: {tried} tried, {caught} caught, {time.monotonic() - begun:.0f} s  {verdict}")
    for text in wrong:
        print(f"      {text}")
    return 1 if wrong else 0


def find_build(given: pathlib.Path | None) -> pathlib.Path:
    candidates = [given] if given else [programs.ROOT / "build" / name for name in ("release", "dev", "debug")]
    for build in candidates:
        if build and (build / programs.PROGRAMS["store_tests"]).exists():
            return build.resolve()
    sys.exit("tools/prove: no test programs; cmake --preset release && cmake --build --preset release")


def main() -> int:
    arguments = make_parser().parse_args()
    if arguments.mutations:
        return run_mutations(arguments.names, arguments.jobs, arguments.no_build)
    build = find_build(arguments.build)
    if arguments.soak is not None:
        return soak.run(build, arguments.soak, arguments.seed)
    numbers = {int(name) for name in arguments.names if name.isdigit()}
    unknown = [name for name in arguments.names if not name.isdigit() or int(name) not in {row.number for row in ROWS}]
    if unknown:
        sys.exit(f"tools/prove: no row {unknown[0]}; there are 1 to {len(ROWS)}")
    seed = arguments.seed
    if arguments.replay:
        row_number, seed = arguments.replay
        if row_number:
            numbers = {row_number}
    rows = [row for row in ROWS if not numbers or row.number in numbers]
    failed = False
    with ThreadPoolExecutor(max_workers=arguments.jobs) as pool:
        running = [
            (row, pool.submit(run_row, row, build, arguments.long, seed, arguments.replay is not None))
            for row in rows
            if row.number != 17
        ]
        for row, future in running:
            outcome, note = future.result()
            report(row, outcome, note)
            failed |= bool(outcome.failed)
    if any(row.number == 17 for row in rows):
        failed |= run_mutations([], arguments.jobs, arguments.no_build) != 0
    return 1 if failed else 0
