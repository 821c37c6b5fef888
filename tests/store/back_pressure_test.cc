// Goal: many large puts, gets and leases through a staging arena of 8 MiB neither deadlock nor take memory beyond it,
// and nobody waits for ever. Method: 64 threads at once, each with objects larger than its share; the resident set is
// measured, and each thread must get through its round.

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

constexpr uint64_t kThreads = 64;
constexpr uint64_t kStaging = uint64_t{8} << 20;

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0, resident = 0, shared = 0;
  statm >> size >> resident >> shared;
  // Pages of files in memory that the kernel maps for direct I/O do not count; those of code do, a little.
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

class BackPressureTest : public StoreFixture {};

TEST_F(BackPressureTest, SixtyFourLargePutsAtOnceAndGets) {
  const uint64_t object_bytes = std::min<uint64_t>(uint64_t{256} << 20, testing::Scaled(2) << 20);
  const uint64_t kinds = 8;  // of contents, shared by the threads: memory of the test, not of the store
  Create(kThreads * 2 * (object_bytes + (1 << 20)) + (uint64_t{64} << 20));
  options_.staging_bytes = kStaging;
  options_.result_pool_bytes = 4 << 20;
  options_.page_locked = false;
  options_.background_fill = false;
  Open();
  // 13 bytes from the start of its allocation, so that no put may go straight from the caller's memory.
  std::vector<std::string> contents;
  for (uint64_t kind = 0; kind < kinds; ++kind)
    contents.push_back(std::string(13, ' ') + RandomBytes(object_bytes, kind));
  ::malloc_trim(0);
  const uint64_t before = ResidentBytes();
  std::atomic<uint64_t> peak = before, done = 0;
  std::vector<uint64_t> puts_done(kThreads, 0);
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const std::string name = absl::StrCat("t/", thread);
      const std::span<const std::byte> bytes = std::as_bytes(std::span(contents[thread % kinds])).subspan(13);
      for (int round = 0; round < 2; ++round) {
        ASSERT_OK(store_->Put({.name = name, .kind = ObjectKind::kBytes, .bytes = bytes}));
        ++puts_done[thread];
        // In pieces, each under a lease of the whole: the reader's memory is not the store's either.
        ASSERT_OK_AND_ASSIGN(const Object object, store_->Find(name));
        std::string piece(64 << 10, '\0');
        for (uint64_t at = 0; at + piece.size() <= object_bytes; at += object_bytes / 4) {
          const ReadRequest request{.object = &object, .offset = at, .to = Span(piece)};
          ASSERT_OK(store_->Read({&request, 1}, {}));
          ASSERT_EQ(std::memcmp(piece.data(), bytes.data() + at, piece.size()), 0) << name << " at " << at;
        }
        const uint64_t resident = ResidentBytes();
        for (uint64_t seen = peak.load(); resident > seen && !peak.compare_exchange_weak(seen, resident);) {
        }
      }
      done.fetch_add(1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done.load(), kThreads);
  for (const uint64_t puts : puts_done) EXPECT_EQ(puts, 2u);
  testing::ReportTried(kThreads * 2, 0);
  RecordProperty("peak_mib", std::to_string((peak - before) >> 20));
  // The arena, the pool, the workers' pieces, a stack and an arena of malloc for each of 64 threads, the index.
  const uint64_t allowed = kStaging + options_.result_pool_bytes + (uint64_t{160} << 20);
  if (testing::kScaleDown == 1) {
    EXPECT_LE(peak - before, allowed) << "objects together: " << kThreads * object_bytes;
  }
}

}  // namespace
}  // namespace tensorshelf
