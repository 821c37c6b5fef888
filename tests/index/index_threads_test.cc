// Goal: lookups from many threads are never older than a commit that returned, while names change, vanish and move.
// Method: one committer publishes the number that it has committed; readers read that number first and compare.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "index/index.h"
#include "tests/index/temporary_index.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::NameOf;
using testing::SmallRecord;
using testing::TemporaryDirectory;

constexpr int kNames = 8;
constexpr int kReaders = 3;

std::string NameAt(uint64_t i) { return absl::StrCat("name", i); }

class IndexThreadsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    IndexOptions options;
    options.memtable_bytes = 1 << 20;
    ASSERT_OK_AND_ASSIGN(index_, Index::Open(directory_.File("index"), Index::Mode::kCreate, options));
  }

  // Runs `read` in threads until `write` is done.
  template <typename Write, typename Read>
  void WriteWhileReading(const Write& write, const Read& read) {
    std::atomic<bool> done{false};
    std::vector<std::thread> readers;
    for (int i = 0; i < kReaders; ++i) {
      readers.emplace_back([&, i] {
        for (uint64_t turn = i; !done && !HasFailure(); ++turn) read(turn);
      });
    }
    write();
    done = true;
    for (std::thread& reader : readers) reader.join();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Index> index_;
};

TEST_F(IndexThreadsTest, NoAnswerIsOlderThanACommitThatReturned) {
  // Commit n gives name n % kNames the generation n and drops its old object: a reader may meet a name without its
  // record between its two lookups, and must not tell.
  std::array<std::atomic<uint64_t>, kNames> published{};
  const auto write = [&] {
    for (uint64_t n = 1; n <= 3000; ++n) {
      const uint64_t i = n % kNames;
      auto batch = index_->NewBatch();
      ASSERT_OK(batch->PutObject(SmallRecord(n), {}));
      batch->PutName(NameAt(i), NameOf(n));
      if (n > kNames) batch->DeleteObject(SmallRecord(n - kNames));
      ASSERT_OK(index_->Commit(*batch, n));
      published[i].store(n, std::memory_order_release);
    }
  };
  const auto read = [&](uint64_t turn) {
    const uint64_t i = turn % kNames;
    const uint64_t least = published[i].load(std::memory_order_acquire);
    const auto found = index_->FindObject(NameAt(i));
    if (!found.ok()) {
      EXPECT_TRUE(absl::IsNotFound(found.status()) && least == 0) << found.status();
      return;
    }
    EXPECT_GE(found->generation, least);
    EXPECT_EQ(*found->record, SmallRecord(found->generation));
  };
  WriteWhileReading(write, read);
  EXPECT_GT(index_->stats().cache_hits, 0u);
}

TEST_F(IndexThreadsTest, AMoveOfARecordIsSeenUnderItsName) {
  ObjectRecord record = SmallRecord(1);
  auto batch = index_->NewBatch();
  ASSERT_OK(batch->PutObject(record, {}));
  batch->PutName("moving", NameOf(1));
  ASSERT_OK(index_->Commit(*batch, 1));
  std::atomic<uint32_t> published{0};
  const auto write = [&] {
    for (uint32_t n = 1; n <= 2000; ++n) {
      record.place_seq = n;
      auto move = index_->NewBatch();
      ASSERT_OK(move->PutObject(record, {}));
      ASSERT_OK(index_->Commit(*move, 1 + n));
      published.store(n, std::memory_order_release);
    }
  };
  const auto read = [&](uint64_t) {
    const uint32_t least = published.load(std::memory_order_acquire);
    const auto found = index_->FindObject("moving");
    ASSERT_OK(found);
    EXPECT_GE(found->record->place_seq, least);
  };
  WriteWhileReading(write, read);
}

TEST_F(IndexThreadsTest, ASnapshotOrAScanSeesOneCommit) {
  // Every commit gives all names its own number.
  const auto write = [&] {
    for (uint64_t n = 1; n <= 500; ++n) {
      auto batch = index_->NewBatch();
      for (int i = 0; i < kNames; ++i) batch->PutName(NameAt(i), NameOf(n));
      ASSERT_OK(index_->Commit(*batch, n));
      if (n % 100 == 0) {
        ASSERT_OK(index_->Flush());
      }
    }
  };
  const auto read = [&](uint64_t turn) {
    std::unique_ptr<IndexSnapshot> snapshot;
    if (turn % 2 == 0) snapshot = index_->NewSnapshot();
    std::vector<uint64_t> seen;
    ASSERT_OK(index_->ScanNames(
        "", "",
        [&](const std::string&, const NameRow& row) {
          seen.push_back(row.generation);
          return true;
        },
        snapshot.get()));
    if (seen.empty()) return;
    EXPECT_EQ(seen, std::vector<uint64_t>(kNames, seen[0]));
    if (snapshot != nullptr) {
      EXPECT_EQ(seen[0], snapshot->commit());
    }
  };
  WriteWhileReading(write, read);
}

}  // namespace
}  // namespace tensorshelf
