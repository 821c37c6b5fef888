// What memory="auto" takes follows from the kernel's files. They are written into a directory here, for machines with
// and without control groups, and the answer is computed by hand.

#include "store/memory_budget.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace tensorshelf {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

class MemoryBudgetTest : public ::testing::Test {
 protected:
  MemoryBudgetTest() {
    std::string pattern = (std::filesystem::current_path() / "budget_test.XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    files_ = {.proc = root_ + "/proc", .cgroup = root_ + "/cgroup"};
  }
  ~MemoryBudgetTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  void WriteAvailable(uint64_t bytes) {
    Write("proc/meminfo", "MemTotal:       999999999 kB\nMemFree:  5 kB\nMemAvailable:   " +
                              std::to_string(bytes / 1024) + " kB\nBuffers: 7 kB\n");
  }

  std::string root_;
  MemoryFiles files_;
};

TEST_F(MemoryBudgetTest, WithoutControlGroupsAQuarterOfWhatIsAvailable) {
  WriteAvailable(8 * kGiB);
  EXPECT_EQ(AvailableMemoryBytes(files_), 8 * kGiB);
  EXPECT_EQ(AutoMemoryBytes(files_), 2 * kGiB);
}

TEST_F(MemoryBudgetTest, TheTightestGroupCounts) {
  WriteAvailable(64 * kGiB);
  Write("proc/self/cgroup", "12:memory:/old\n0::/a/b\n");
  Write("cgroup/a/memory.max", std::to_string(4 * kGiB) + "\n");
  Write("cgroup/a/memory.current", std::to_string(3 * kGiB) + "\n");
  Write("cgroup/a/memory.stat", "anon 7\ninactive_file " + std::to_string(kGiB) + "\nactive_file 0\n");
  Write("cgroup/a/b/memory.max", "max\n");
  Write("cgroup/a/b/memory.current", std::to_string(kGiB) + "\n");
  EXPECT_EQ(AvailableMemoryBytes(files_), 2 * kGiB);
  Write("cgroup/a/b/memory.max", std::to_string(kGiB + kGiB / 2) + "\n");
  EXPECT_EQ(AvailableMemoryBytes(files_), kGiB / 2);
}

TEST_F(MemoryBudgetTest, AGroupThatIsOverItsLimitLeavesNothing) {
  WriteAvailable(64 * kGiB);
  Write("proc/self/cgroup", "0::/\n");
  Write("cgroup/memory.max", std::to_string(kGiB) + "\n");
  Write("cgroup/memory.current", std::to_string(2 * kGiB) + "\n");
  EXPECT_EQ(AvailableMemoryBytes(files_), 0u);
  EXPECT_EQ(AutoMemoryBytes(files_), 0u);
}

TEST_F(MemoryBudgetTest, LittleIsNothingAndMuchIsBounded) {
  WriteAvailable(255 << 20);
  EXPECT_EQ(AutoMemoryBytes(files_), 0u);
  WriteAvailable(256 << 20);
  EXPECT_EQ(AutoMemoryBytes(files_), 64u << 20);
  WriteAvailable(4096 * kGiB);
  EXPECT_EQ(AutoMemoryBytes(files_), 64 * kGiB);
}

TEST_F(MemoryBudgetTest, WhatCannotBeReadMeansNoTier) {
  EXPECT_EQ(AvailableMemoryBytes(files_), 0u);
  EXPECT_EQ(AutoMemoryBytes(files_), 0u);
}

TEST(MemoryBudgetHereTest, ThisMachineHasSome) { EXPECT_GT(AvailableMemoryBytes(), 0u); }

}  // namespace
}  // namespace tensorshelf
