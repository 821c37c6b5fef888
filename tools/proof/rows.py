"""The rows of the fault catalogue: which tests they are, and how large the quick and the long run make them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
    """Tests of one program; `quick` and `long` are factors on the sizes that the tests have by themselves."""

    program: str
    tests: str
    quick: float = 1
    long: float = 1


@dataclasses.dataclass(frozen=True)
class Row:
    number: int
    title: str
    checks: tuple[Check, ...]
    passes_when: str


ROWS = (
    Row(
        1,
        "random operations against a model",
        (Check("store_tests", "ModelTest.*", 10, 1000), Check("index_tests", "Seeds/IndexModelTest.*", 5, 50)),
        "no difference",
    ),
    Row(
        2,
        "power cuts at every step",
        (Check("store_tests", "CrashTest.CreationIsWhole*:CrashTest.OneOfEachOperation", 19, 1900),),
        "acknowledged changes are there and equal, others whole or absent, every state opens",
    ),
    Row(
        3,
        "power cuts in random and concurrent work",
        (Check("store_tests", "Seeds/RandomCrashTest.*:CrashTest.ConcurrentCommits", 20, 2000),),
        "as row 2",
    ),
    Row(
        4,
        "kill -9 at any moment",
        (
            Check("store_tests", "KillTest.*", 10, 500),
            Check("index_tests", "IndexProcessesTest.AKilledWriterLosesNothing*"),
        ),
        "nothing acknowledged is lost",
    ),
    Row(
        5, "kills at named points", (Check("store_tests", "KillPointTest.*", 20, 1000),), "as row 2, and fsck is clean"
    ),
    Row(
        6,
        "flipped bits",
        (
            Check("store_tests", "BitFlipTest.*", 7.5, 100),
            Check("index_tests", "LogDamageTest.*:IndexTest.DamageInATable*"),
        ),
        "no wrong bytes, no silent loss, the victim is named",
    ),
    Row(
        7,
        "lost, stale, misdirected and swapped writes",
        (Check("store_tests", "MisplacedWriteTest.*", 10, 200),),
        "each is found by read and by verify",
    ),
    Row(
        8,
        "the k-th call fails",
        (
            Check("store_tests", "FaultTest.*", 2, 2),
            Check("engine_tests", "FaultTest.*"),
            Check("index_tests", "IndexFaultTest.*"),
        ),
        "a typed error, no acknowledgement, reopens",
    ),
    Row(
        9,
        "a file system that is full or gone",
        (
            Check("store_tests", "FileSystems/FullDiskTest.*"),
            Check("store_tests", "OpenTest.WithoutRoomForTheIndex*"),
        ),
        "a typed error, reading goes on",
    ),
    Row(
        10,
        "mutated bytes for every decoder and parser",
        (
            Check("store_tests", "FormatFuzz.*", 20, 5000),
            Check("index_tests", "RecordCodecTest.RandomMutations*", 20, 5000),
            Check("tools_tests", "ParserFuzz.*:SafetensorsFuzz.*", 20, 5000),
        ),
        "no crash, bounded memory",
    ),
    Row(11, "sanitizers", (), "no report"),
    Row(
        12,
        "allocator against an oracle, and ageing",
        (Check("store_tests", "OracleTest.*", 10, 1000), Check("store_tests", "Mixes/AgeingTest.*")),
        "no overlap, no leak, bounds on splits and fragmentation",
    ),
    Row(
        13,
        "back-pressure",
        (
            Check("store_tests", "BackPressureTest.*", 8, 128),
            Check("engine_tests", "IoEngineTest.ManyLargeBatches*:StagingArenaTest.*"),
        ),
        "no deadlock, memory within its bound, all are served",
    ),
    Row(
        14,
        "the command line beside a live writer",
        (
            Check("tools_tests", "CliLiveWriter.*", 5, 125),
            Check("tools_tests", "CliEndToEnd.Looking*:CliEndToEnd.VerifyBeside*:CliFsck.BesideAWriter"),
        ),
        "no false damage, nothing written",
    ),
    Row(
        15,
        "exclusivity, fork, mixed-up and hostile files",
        (
            Check("store_tests", "OpenTest.*:HostileShelfTest.*:FileModeTest.*:StoreTest.ASecondWriter*"),
            Check("engine_tests", "LinuxDiskTest.*Lock*:LinuxDiskTest.AForked*:MemoryPoolTest.AForked*"),
        ),
        "refused, each with its own message",
    ),
    Row(
        16,
        "golden stores and features of the future",
        (
            Check("store_tests", "GoldenTest.*:LabelFileTest.UnknownFeatures:OpenTest.AnUnknownIncompatible*"),
            Check("index_tests", "RecordCodecTest.GoldenBytes*:RecordCodecTest.SpaceIsKnown*"),
        ),
        "read, or refused by name",
    ),
    Row(17, "deliberate breakages", (), "each is caught"),
)

# Row 11: what runs under each sanitizer when its build is there (tools/test --only asan --only tsan makes them).
SANITIZED = (
    ("asan", Check("engine_tests", "*-*DeathTest*")),
    ("asan", Check("store_tests", "FormatFuzz.*:HostileShelfTest.*:StoreTest.*:FaultTest.SyncFails")),
    ("tsan", Check("engine_tests", "IoEngineTest.*:StagingArenaTest.*:MemoryPoolTest.*-*Forked*")),
    ("tsan", Check("index_tests", "IndexThreadsTest.*")),
    (
        "tsan",
        Check("store_tests", "StoreTest.Threads*:StoreTest.Readers*:MoveTest.Beside*:CompactTest.Beside*:ReadGuards.*"),
    ),
)
