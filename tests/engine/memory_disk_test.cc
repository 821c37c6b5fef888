// Goal: the disk in memory, on which crash tests stand, is as strict as it says. Method: each promise of its header is
// asked for by name, contents are compared with a plain string.

#include "tests/testing/memory_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace tensorshelf::testing {
namespace {

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string Contents(Disk& disk, const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(disk, path, 1 << 20);
  return text.ok() ? *text : text.status().ToString();
}

std::unique_ptr<File> Create(Disk& disk, const std::string& path) {
  auto file = disk.Open(path, {.writable = true, .create = true});
  EXPECT_OK(file);
  return *std::move(file);
}

TEST(MemoryDiskTest, ALargeFileCostsNothingAndReadsAsZeros) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(file->Allocate(uint64_t{1} << 30));
  EXPECT_EQ(*file->Size(), uint64_t{1} << 30);
  ASSERT_OK(WriteExactly(*file, (uint64_t{1} << 29) - 2, BytesOf("abcd")));
  std::string text(8, '?');
  ASSERT_OK(ReadExactly(*file, (uint64_t{1} << 29) - 4, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, std::string("\0\0abcd\0\0", 8));
}

TEST(MemoryDiskTest, TruncatedBytesDoNotComeBack) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("0123456789")));
  ASSERT_OK(file->Truncate(4));
  ASSERT_OK(file->Truncate(8));
  EXPECT_EQ(Contents(disk, "/a"), std::string("0123\0\0\0\0", 8));
}

TEST(MemoryDiskTest, CapacityIsCountedAndGivenBack) {
  MemoryDisk disk({.alignment = {}, .capacity_bytes = 1000});
  const auto file = Create(disk, "/a");
  ASSERT_OK(file->Allocate(900));
  EXPECT_FAILS(file->Allocate(1001), absl::StatusCode::kResourceExhausted, "ENOSPC");
  EXPECT_EQ(file->PWrite(999, BytesOf("xy")), -ENOSPC);
  EXPECT_EQ(disk.Space("/")->available_bytes, 100u);
  ASSERT_OK(disk.Remove("/a"));
  ASSERT_OK(file->Truncate(0));
  EXPECT_EQ(disk.Space("/")->available_bytes, 1000u);
}

TEST(MemoryDiskTest, OnlyASyncMakesBytesDurableAndOnlyADirectorySyncNames) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("synced")));
  ASSERT_OK(file->Sync());
  EXPECT_EQ(disk.AfterCrash(CrashPolicy::DropUnsynced())->Stat("/a")->kind, PathInfo::Kind::kAbsent);
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("unsafe")));
  ASSERT_OK(WriteExactly(*file, 6, BytesOf("tail")));
  EXPECT_EQ(disk.unsynced_count(), 2u);
  EXPECT_EQ(Contents(*disk.AfterCrash(CrashPolicy::DropUnsynced()), "/a"), "synced");
  EXPECT_EQ(Contents(*disk.AfterCrash(CrashPolicy::KeepUnsynced()), "/a"), "unsafetail");
  EXPECT_EQ(Contents(disk, "/a"), "unsafetail");
}

TEST(MemoryDiskTest, UnsyncedWritesSurviveInAnyCombination) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("aabb")));
  ASSERT_OK(file->Sync());
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("AA")));
  ASSERT_OK(WriteExactly(*file, 2, BytesOf("BB")));
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    seen.insert(Contents(*disk.AfterCrash(CrashPolicy::RandomWrites(seed)), "/a"));
  }
  EXPECT_EQ(seen, (std::set<std::string>{"aabb", "AAbb", "aaBB", "AABB"}));
}

TEST(MemoryDiskTest, AWriteIsTornAtSectors) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(file->Allocate(1024));
  ASSERT_OK(file->Sync());
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK(WriteExactly(*file, 0, BytesOf(std::string(1024, 'x'))));
  CrashPolicy policy = CrashPolicy::DropUnsynced();
  policy.keeps_sector = [](const CrashPolicy::Sector& sector) { return sector.offset == 512; };
  EXPECT_EQ(Contents(*disk.AfterCrash(policy), "/a"), std::string(512, '\0') + std::string(512, 'x'));
}

TEST(MemoryDiskTest, ACrashKillsWhatWasOpen) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK_AND_ASSIGN(const auto old_lock, disk.Lock("/LOCK", "first"));
  disk.CrashAndRestart(CrashPolicy::DropUnsynced());
  EXPECT_EQ(file->PWrite(0, BytesOf("x")), -EIO);
  EXPECT_FAILS(file->Sync(), absl::StatusCode::kInternal, "EIO");
  ASSERT_OK_AND_ASSIGN(const auto new_lock, disk.Lock("/LOCK", "second"));
  EXPECT_EQ(*disk.LockHolder("/LOCK"), "second");
  EXPECT_EQ(Contents(disk, "/a"), "");
}

TEST(MemoryDiskTest, ADiskAfterACrashAndItsOriginalAreApart) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("before")));
  const auto other = disk.AfterCrash(CrashPolicy::KeepUnsynced());
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("one")));
  ASSERT_OK_AND_ASSIGN(const auto other_file, other->Open("/a", {.writable = true}));
  ASSERT_OK(WriteExactly(*other_file, 3, BytesOf("two")));
  EXPECT_EQ(Contents(disk, "/a"), "oneore");
  EXPECT_EQ(Contents(*other, "/a"), "beftwo");
}

TEST(MemoryDiskTest, ARenameIsDurableWithItsDirectory) {
  MemoryDisk disk;
  Create(disk, "/a");
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK(disk.Rename("/a", "/b"));
  EXPECT_EQ(disk.AfterCrash(CrashPolicy::DropUnsynced())->List("/").value(), std::vector<std::string>{"a"});
  EXPECT_EQ(disk.AfterCrash(CrashPolicy::KeepUnsynced())->List("/").value(), std::vector<std::string>{"b"});
  ASSERT_OK(disk.SyncDirectory("/"));
  EXPECT_EQ(disk.AfterCrash(CrashPolicy::DropUnsynced())->List("/").value(), std::vector<std::string>{"b"});
}

TEST(MemoryDiskTest, DirectoriesBehaveAsOnARealDisk) {
  MemoryDisk disk;
  EXPECT_FAILS(disk.MakeDirectory("/x/y", 0700), absl::StatusCode::kNotFound, "ENOENT");
  ASSERT_OK(disk.MakeDirectory("/x", 0700));
  EXPECT_FAILS(disk.MakeDirectory("/x", 0700), absl::StatusCode::kAlreadyExists, "EEXIST");
  Create(disk, "/x/file");
  EXPECT_FAILS(disk.Remove("/x"), absl::StatusCode::kInternal, "ENOTEMPTY");
  EXPECT_FAILS(disk.Open("/x", {}), absl::StatusCode::kInvalidArgument, "not a regular file");
  EXPECT_FAILS(disk.Open("/x/file", {.writable = true, .create = true}), absl::StatusCode::kAlreadyExists, "EEXIST");
  EXPECT_FAILS(disk.Open("/x/none", {}), absl::StatusCode::kNotFound, "ENOENT");
  ASSERT_OK(disk.Rename("/x", "/z"));
  EXPECT_EQ(disk.Stat("/z/file")->kind, PathInfo::Kind::kFile);
  EXPECT_EQ(disk.Stat("z//./file")->kind, PathInfo::Kind::kFile);
}

TEST(MemoryDiskTest, ALockIsHeldOnce) {
  MemoryDisk disk;
  EXPECT_FAILS(disk.LockHolder("/LOCK"), absl::StatusCode::kNotFound, "");
  ASSERT_OK_AND_ASSIGN(auto lock, disk.Lock("/LOCK", "pid 1"));
  EXPECT_FAILS(disk.Lock("//LOCK", "pid 2"), absl::StatusCode::kFailedPrecondition, "locked by pid 1");
  EXPECT_EQ(Contents(disk, "/LOCK"), "pid 1");
  lock.reset();
  EXPECT_OK(disk.Lock("/LOCK", "pid 2"));
}

TEST(MemoryDiskTest, FlippedBitsAreInBothImages) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK(WriteExactly(*file, 0, BytesOf("aaa")));
  ASSERT_OK(file->Sync());
  ASSERT_OK(disk.SyncDirectory("/"));
  ASSERT_OK(disk.FlipBits("/a", 1, 'a' ^ 'b'));
  EXPECT_EQ(Contents(disk, "/a"), "aba");
  EXPECT_EQ(Contents(*disk.AfterCrash(CrashPolicy::DropUnsynced()), "/a"), "aba");
}

TEST(MemoryDiskTest, TheQueueMovesBytesAndRefusesMisalignedOnes) {
  MemoryDisk disk;
  const auto file = Create(disk, "/a");
  ASSERT_OK_AND_ASSIGN(const auto queue, disk.NewQueue(3));
  alignas(4096) static std::byte memory[8192] = {std::byte{7}};
  IoOp good{.kind = IoKind::kWrite, .file = file.get(), .offset = 0, .memory = memory, .length = 4096};
  IoOp bad_memory = good, bad_offset = good, bad_length = good;
  bad_memory.memory += 64;
  bad_offset.offset = 512;
  bad_length.length = 100;
  std::vector<IoOp*> ops = {&good, &bad_memory, &bad_offset, &bad_length};
  EXPECT_EQ(queue->Submit(ops), 3) << "takes what its depth allows";
  EXPECT_EQ(queue->Submit({&ops[3], 1}), -EAGAIN);
  std::vector<IoCompletion> completions(8);
  ASSERT_EQ(queue->Reap(3, completions, -1), 3);
  EXPECT_EQ(completions[0].result, 4096);
  EXPECT_EQ(completions[1].result, -EINVAL);
  EXPECT_EQ(completions[2].result, -EINVAL);
  EXPECT_EQ(queue->Submit({&ops[3], 1}), 1);
  ASSERT_EQ(queue->Reap(1, completions, -1), 1);
  EXPECT_EQ(completions[0].op, &bad_length);
  EXPECT_EQ(completions[0].result, -EINVAL);
  EXPECT_EQ(Contents(disk, "/a").size(), 4096u);
  EXPECT_EQ(Contents(disk, "/a")[0], '\7');
}

}  // namespace
}  // namespace tensorshelf::testing
