"""Row 17, the mutation check: each breakage of engine/foundation/mutation.h must fail a test that is meant for it."""

import dataclasses
import os
import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from proof import programs


@dataclasses.dataclass(frozen=True)
class Mutation:
    """`rule`: what it breaks: invariants of the design (I1 to I10), a step of commit (C1 to C5) or open (O1 to O7)."""

    name: str
    rule: str
    tests: tuple[tuple[str, str], ...]  # (program, filter), tried in order until one fails


def _store(name: str, rule: str, *filters: str) -> Mutation:
    return Mutation(name, rule, tuple(("store_tests", each) for each in filters))


def _engine(name: str, rule: str, *filters: str) -> Mutation:
    return Mutation(name, rule, tuple(("engine_tests", each) for each in filters))


CRASH = "CrashTest.OneOfEachOperation"

MUTATIONS = (
    _store("skip_data_sync", "I1 C2: no fdatasync before the row", CRASH),
    _store("row_before_data", "I1 C3: the row goes before the fdatasync", CRASH),
    _store("unsynced_log", "C3: acknowledged before the log is durable", CRASH),
    _store("witness_too_early", "C1: the witness names the commit that is under way", CRASH),
    _store("skip_witness_slot", "C1: no witness rides on the data", "OpenTest.AnOlderIndexIsRefusedAfterAKillToo"),
    _store("forget_fsync_slot", "C3: the index does not keep the slot it relied on", "OpenTest.AnOlderDataFile*"),
    _store("skip_idle_witness", "C5: no witness when idle or overdue", "StoreTest.ABusyStreamOfCommits*"),
    _store("skip_closing_witness", "C5: no witness at close", "OpenTest.AnOlderIndexIsRefusedByTheWitness"),
    _store("miscount_space", "I2: the states no longer add up", "ExtentAllocator.WalksThroughTheStates"),
    _store("leak_reservation", "I2: what a failed put reserved is not given back", "FaultTest.TransfersFail"),
    _store("accept_overlap", "I2 O6: two objects own one unit", "ExtentAllocatorRebuild.RefusesWhatCannotBe"),
    _store(
        "free_before_commit", "I3 C4: reused before the drop is durable", "CrashTest.ConcurrentCommits", "FaultTest.*"
    ),
    _store("free_while_leased", "I3 C4: reused under a lease", "StoreTest.ALeaseKeepsReplacedBytes"),
    _store("free_while_guarded", "I3 C4: reused under a view", "StoreTest.AViewSeesOneCommit", "ModelTest.FirstHalf"),
    _store("never_free", "C4: dropped space stays parked", "StoreTest.ReplacingAndDeletingGivesSpaceBack"),
    _store("overwrite_in_place", "I4: a put writes over the live object too", "StoreTest.ALease*", CRASH),
    _store("trust_old_freemap", "I5 O6: a freemap of another commit is used", CRASH),
    _store("undecodable_is_free", "I5 O6: an undecodable record owns nothing", "HostileShelfTest.AnUndecodable*"),
    _store("skip_verification", "I6: sums are not compared", "BitFlipTest.DataBlocks"),
    _store("hand_out_damaged_block", "I6: a damaged block stays in the caller's memory", "BitFlipTest.DataBlocks"),
    _engine("ignore_transfer_error", "I7 C1: an error of a transfer is no error", "FaultTest.FailedCompletion"),
    _engine("short_transfer_is_done", "I7 C1: a short transfer counts as whole", "TransferTest.*"),
    _store("ignore_sync_error", "I7 C2: an fdatasync error is no error", "FaultTest.SyncFails"),
    _store("go_on_after_sync_error", "I7 C2: a file is written on after its fdatasync failed", "FaultTest.SyncFails"),
    _store("ignore_log_error", "I7 C3: an error of the log is no error", "FaultTest.TheLogOfTheIndexFails"),
    _store("reuse_after_log_error", "I7 C3: space is reused after a commit of unknown outcome", "FaultTest.TheLog*"),
    _engine("return_before_io_ends", "I8: a failed call returns with I/O in flight", "FaultTest.AFailedBatchReturns*"),
    _engine("skip_second_hash", "I8: memory that changed meanwhile is not noticed", "IoEngineTest.ChangedMemory*"),
    _engine("unbounded_result_pool", "I9: the pool keeps what it likes", "MemoryPoolTest.*"),
    _store("range_check_in_debug_only", "I10: an assert instead of a check", "StoreTest.RangesReadOnly*"),
    _store("read_outside_data_area", "O6: a record may point anywhere", "HostileShelfTest.RecordsThatPoint*"),
    _store("skip_trailers", "C1: no trailers", "MoveTest.SalvageTakesTheNewerPlace"),
    _store("stale_record_cache", "C4: the record cache is not told", "StoreTest.*", "ModelTest.FirstHalf"),
    _store("skip_lock", "O1: no lock", "StoreTest.ASecondWriter*"),
    _store("accept_foreign_files", "O1: files of another store", "OpenTest.ADataFileOfAnother*"),
    _store("accept_swapped_files", "O1: files under each other's names", "OpenTest.SwappedFiles*"),
    _store("accept_other_bounds", "O1: label and index disagree", "OpenTest.ALabelOfOtherBounds*"),
    _store("ignore_unknown_features", "O1: features of the future", "OpenTest.AnUnknownIncompatible*"),
    _store("skip_sync_at_open", "O2: no fdatasync before the slots are trusted", "OpenTest.EveryFileIsSynced*"),
    _store("skip_witness_check", "O4: fewer commits than were witnessed", "OpenTest.AnOlderIndex*"),
    _store("skip_two_mode_check", "O3 O4: damage inside the log", "OpenTest.DamageInsideTheLog*"),
    _store("skip_slot_check", "O4: a data file older than the index", "OpenTest.AnOlderDataFile*"),
    _store("reuse_epoch", "O5: the epoch does not rise", "OpenTest.EachOpenHasAnEpochOfItsOwn"),
    _store("skip_epoch_slot", "O5: the new epoch is not in the slots", "OpenTest.EachOpenHasAnEpochOfItsOwn"),
    _store("reuse_commit_numbers", "O5: numbers of lost commits are given again", "OpenTest.AfterAnAcceptedLoss*"),
)

BUILD = programs.ROOT / "build" / "mutations"
TARGETS = ("engine_tests", "store_tests")


def names_in_sources() -> set[str]:
    names = set()
    for folder in ("engine", "index", "store"):
        for path in (programs.ROOT / folder).rglob("*.[ch]*"):
            names |= set(re.findall(r"TS_MUTATE\((\w+)\)", path.read_text()))
    return names - {"name"}


def build(jobs: int) -> str:
    """Builds the mutated test programs; what went wrong, or ""."""
    configure = ["cmake", "-S", str(programs.ROOT), "-B", str(BUILD), "-G", "Ninja"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", "-DTENSORSHELF_MUTATIONS=ON", "-DTENSORSHELF_TOOLS=OFF"]
    for command in (configure, ["cmake", "--build", str(BUILD), "-j", str(jobs), "--target", *TARGETS]):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            return (ended.stdout + ended.stderr)[-2000:]
    return ""


def try_one(mutation: Mutation, build_folder: pathlib.Path) -> str:
    """The test that caught it, or ""."""
    for program, test_filter in mutation.tests:
        outcome = programs.run_program(
            build_folder, program, test_filter, mutation=mutation.name, timeout_s=300, fail_fast=True
        )
        if outcome.failed:
            return outcome.failed[0]
    return ""


def run(build_folder: pathlib.Path, jobs: int, selected: list[str], say) -> tuple[int, list[str]]:
    """How many were tried, and what is wrong: missed ones, tests that fail without a breakage, names without a row."""
    wrong = []
    listed = {mutation.name for mutation in MUTATIONS}
    wrong += [f"{name} is in the sources and not in the list" for name in sorted(names_in_sources() - listed)]
    wrong += [f"{name} is in the list and not in the sources" for name in sorted(listed - names_in_sources())]
    chosen = [mutation for mutation in MUTATIONS if not selected or mutation.name in selected]
    by_program: dict[str, set[str]] = {}
    for mutation in chosen:
        for program, test_filter in mutation.tests:
            by_program.setdefault(program, set()).add(test_filter)
    for program, filters in by_program.items():
        sound = programs.run_program(build_folder, program, ":".join(sorted(filters)), timeout_s=1200)
        wrong += [f"{name} fails without a breakage" for name in sound.failed]
    if wrong:
        return 0, wrong
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for mutation, caught_by in zip(chosen, pool.map(lambda each: try_one(each, build_folder), chosen), strict=True):
            say(f"  {mutation.name:26} {'caught by ' + caught_by if caught_by else 'MISSED'}   ({mutation.rule})")
            if not caught_by:
                wrong.append(f"{mutation.name} was missed")
    return len(chosen), wrong


def default_jobs() -> int:
    return max(1, min(2, os.cpu_count() or 1))
