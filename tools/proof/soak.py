"""The soak: writers that are killed, readers and the tool beside them, against a model; watched for drift.

Rounds of the scaled kill, model, crash and live-writer tests run one after another with rising seeds until the time is
over. Between rounds nothing may be left behind: no process, no open descriptor of this one, no file in the scratch
directories; and no round may need more memory or disk than the first ones did.
"""

import glob
import os
import pathlib
import random
import resource
import time

from proof import programs

# One round: (program, tests, factor on their size); about half a minute on two cores.
ROUND = (
    ("store_tests", "ModelTest.*", 0.5),
    ("store_tests", "KillTest.*", 1),
    ("store_tests", "KillPointTest.*", 1),
    ("store_tests", "Seeds/RandomCrashTest.*", 0.5),
    ("store_tests", "MoveTest.Beside*:CompactTest.Beside*:StoreTest.Threads*:StoreTest.Readers*", 1),
    ("tools_tests", "CliLiveWriter.*", 1),
)
SCRATCH = ("/dev/shm/tensorshelf_*", "/tmp/tensorshelf_*")


def leftovers() -> set[str]:
    return {path for pattern in SCRATCH for path in glob.glob(pattern)}


def children_peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def free_mib(folder: str) -> float:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize / 2**20


def run(build: pathlib.Path, seconds: float, seed: int | None) -> int:
    seed = random.SystemRandom().randrange(10**6, 10**9) if seed is None else seed
    print(f"soak of {seconds:.0f} s, seed {seed}", flush=True)
    end = time.monotonic() + seconds
    before = leftovers()
    open_before = len(os.listdir("/proc/self/fd"))
    free_before = free_mib("/dev/shm")
    rounds, tried, peak_mib, drift = 0, 0, 0.0, []
    while rounds == 0 or time.monotonic() < end:
        for program, tests, scale in ROUND:
            outcome = programs.run_program(build, program, tests, scale=scale, seed=seed + 1000 * rounds)
            tried += outcome.tried
            if outcome.failed:
                print(outcome.output[-4000:])
                print(f"soak FAILED in round {rounds}: {outcome.failed}; seed {seed + 1000 * rounds}")
                return 1
        rounds += 1
        if rounds == 3:
            peak_mib = children_peak_mib()
        if leftovers() - before:
            drift.append(f"files left: {sorted(leftovers() - before)[:3]}")
        if len(os.listdir("/proc/self/fd")) > open_before:
            drift.append("descriptors left open")
        if free_before - free_mib("/dev/shm") > 64 and not leftovers() - before:
            drift.append("/dev/shm has less room than at the start")
        if peak_mib and children_peak_mib() > 1.5 * peak_mib + 64:
            drift.append(f"a round took {children_peak_mib():.0f} MiB, the first three {peak_mib:.0f} MiB")
        if drift:
            print(f"soak FAILED after round {rounds}: {'; '.join(drift)}")
            return 1
    print(f"soak: {rounds} rounds, {tried} trials, 0 failures, peak {children_peak_mib():.0f} MiB, seed {seed}  ok")
    return 0
