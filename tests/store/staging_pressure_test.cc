// Many more bytes at a time than there is staging memory: everything must come through, in bounded memory. And
// ephemeral tensors that are more than the memory tier holds: they go to the device and back without one sync or index
// write.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "store/live_page.h"
#include "store/operation_meters.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::kScaleDown;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A line of /proc/self/status in bytes.
uint64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1)) << 10;
  }
  return 0;
}

// VmHWM counts from here on.
bool ForgetPeak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return clear.good();
}

class StagingPressureTest : public StoreFixture {
 protected:
  void Start(uint64_t capacity) {
    options_.page_locked = false;
    options_.background_fill = false;
    options_.staging_bytes = 8 * kMiB;
    options_.result_pool_bytes = 0;
    Create(capacity);
    Open();
  }
};

TEST_F(StagingPressureTest, SixtyFourPutsAndGetsAtATimePassThroughEightMebibytes) {
  constexpr size_t kThreads = 64;
  constexpr size_t kBytes = 3 * kMiB;
  Start(kThreads * 4 * kMiB);
  EXPECT_EQ(store_->live_page().gauges.arena_buffers, 8u);
  const std::string source = RandomBytes(kBytes + 16, 1);
  // All threads read into one memory, a byte off any alignment: what they read is the same everywhere.
  std::string target(kBytes + 16, '\0');
  const bool measured = kScaleDown == 1 && ForgetPeak();
  const uint64_t before = StatusBytes("VmRSS");
  std::atomic<size_t> failed_count{0};
  std::vector<std::thread> threads;
  const auto work = [&](size_t i) {
    const std::string name = "t" + std::to_string(i);
    PutItem item{.name = name, .kind = ObjectKind::kBytes};
    item.bytes = std::as_bytes(std::span(source)).subspan(1, kBytes);
    if (!store_->Put(item).ok()) ++failed_count;
  };
  for (size_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  EXPECT_EQ(failed_count, 0u);
  // One reader after the other compares; the others only have to get through.
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      auto object = store_->Find("t" + std::to_string(i));
      std::string own;
      std::span<std::byte> to = Span(target).subspan(1, kBytes);
      if (i % 16 == 0) {
        own.resize(kBytes + 1);
        to = Span(own).subspan(1);
      } else if (kScaleDown > 1) {
        return;  // a shared target is a race, if one of equal bytes
      }
      const ReadRequest request{.object = &*object, .offset = 0, .to = to};
      if (!object.ok() || !store_->Read({&request, 1}, {}).ok()) ++failed_count;
      if (!own.empty() && own.compare(1, kBytes, source, 1, kBytes) != 0) ++failed_count;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed_count, 0u);
  EXPECT_GE(store_->stats().io.staged_bytes, kThreads * kBytes);
  if (!measured) return;
  // The arena, four targets, the index and its cache, stacks and records: not the 192 MiB that were under way.
  const uint64_t grown = StatusBytes("VmHWM") - std::min(StatusBytes("VmHWM"), before);
  RecordProperty("grown_mib", static_cast<int>(grown / kMiB));
  EXPECT_LE(grown, options_.staging_bytes + 4 * kBytes + 64 * kMiB);
}

TEST_F(StagingPressureTest, EphemeralTensorsBeyondTheMemoryTierCostNoSyncAndNoIndexWrite) {
  options_.memory_bytes = 8 * kMiB;
  options_.idle_witness_ms = 1000000;
  Start(64 * kMiB);
  const auto calls = [&](Operation operation) {
    return store_->live_page().operations[static_cast<size_t>(operation)].calls;
  };
  const uint64_t syncs = calls(Operation::kSync), index_writes = calls(Operation::kIndexWrite);
  const uint64_t commits = store_->stats().index.commits;
  std::vector<std::string> values;
  for (uint64_t i = 0; i < 6; ++i) values.push_back(RandomBytes(4 * kMiB + i, i));  // three times the tier
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < values.size(); ++i) {
      PutItem item = BytesItem("e" + std::to_string(i), values[i]);
      item.ephemeral = true;
      ASSERT_OK(store_->Put(item));
    }
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(Get("e" + std::to_string(i)), values[i]);
  }
  EXPECT_EQ(calls(Operation::kSync), syncs);
  EXPECT_EQ(calls(Operation::kIndexWrite), index_writes);
  EXPECT_EQ(store_->stats().index.commits, commits);
  EXPECT_GE(store_->stats().io.read_bytes, 4 * 4 * kMiB) << "they were all in memory, which proves nothing";
}

}  // namespace
}  // namespace tensorshelf
