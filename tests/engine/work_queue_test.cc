// Which block is next where every lane has some: the shares that the head of the queue's header promises.
// Batches of made-up segments are queued, and their blocks taken without moving a byte.

#include "engine/work_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class WorkQueueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto file = disk_.Open("/f", {.writable = true, .create = true});
    ASSERT_OK(file);
    file_ = *std::move(file);
  }
  // 16 blocks of 1 MiB each, or of 4 KiB that are too far apart to be one.
  std::shared_ptr<BatchState> Add(Priority priority, uint64_t length) {
    Batch batch{.kind = IoKind::kRead, .priority = priority, .segments = {}, .done = nullptr};
    for (uint64_t i = 0; i < 16; ++i) {
      batch.segments.push_back(
          {.file = file_.get(), .offset = 2 * i * kMiB, .memory = memory_.data(), .length = length});
    }
    auto state = std::make_shared<BatchState>(std::move(batch), PlanOptions{});
    EXPECT_EQ(state->plan().blocks.size(), 16u);
    queue_.Add(state);
    return state;
  }
  std::map<BatchState*, int> TakeSixteen() {
    std::map<BatchState*, int> counts;
    for (int i = 0; i < 16; ++i) {
      const WorkQueue::Pick pick = queue_.Take(/*has_buffer=*/true);
      EXPECT_EQ(pick.verdict, WorkQueue::Verdict::kBlock);
      ++counts[pick.batch.get()];
    }
    return counts;
  }

  testing::MemoryDisk disk_;
  std::unique_ptr<File> file_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(kMiB);
  WorkQueue queue_;
};

TEST_F(WorkQueueTest, HighPriorityGoesFirstAndNobodyIsShutOut) {
  const auto background = Add(Priority::kBackground, kMiB);
  const auto large = Add(Priority::kForeground, kMiB);
  const auto small = Add(Priority::kForeground, 4096);
  const auto high = Add(Priority::kHigh, kMiB);
  EXPECT_EQ(queue_.Take(true).batch, high);
  EXPECT_EQ(queue_.Take(true).batch, high);
  EXPECT_EQ(queue_.Take(true).batch, high);
  EXPECT_EQ(queue_.Take(true).batch, large);
  for (int i = 4; i < 16; ++i) queue_.Take(true);
  Add(Priority::kHigh, kMiB);
  auto counts = TakeSixteen();
  EXPECT_EQ(counts[large.get()], 3);
  EXPECT_EQ(counts[small.get()], 1);
  EXPECT_EQ(counts[background.get()], 1);
  EXPECT_EQ(queue_.backlog(), 5u * 16 - 32);
}

TEST_F(WorkQueueTest, WithoutItSmallBlocksOvertakeLargeOnes) {
  const auto background = Add(Priority::kBackground, kMiB);
  const auto large = Add(Priority::kForeground, kMiB);
  const auto small = Add(Priority::kForeground, 4096);
  auto counts = TakeSixteen();
  EXPECT_EQ(counts[small.get()], 12);
  EXPECT_EQ(counts[large.get()], 3);
  EXPECT_EQ(counts[background.get()], 1);
}

}  // namespace
}  // namespace tensorshelf
