// Goal: memory is recycled, bounded, first in first out, and safe across fork and without the right to lock pages.
// Method: counts and addresses are compared, threads meet at named points, forks and limits are real child processes.

#include "engine/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

int ExitStatusOf(const std::function<int()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(child());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

bool IsAligned(const void* address, size_t alignment) { return reinterpret_cast<uintptr_t>(address) % alignment == 0; }

bool IsMapped(std::byte* page) {
  unsigned char resident;
  return ::mincore(page, 4096, &resident) == 0;
}

size_t ResidentPages(const std::byte* data, size_t size) {
  std::vector<unsigned char> resident(size / 4096);
  EXPECT_EQ(::mincore(const_cast<std::byte*>(data), size, resident.data()), 0);
  size_t count = 0;
  for (const unsigned char page : resident) count += page & 1;
  return count;
}

// What the hooks were told. Thread-safe.
class HookLog {
 public:
  MemoryHooks hooks() {
    return {.mapped = [this](void* address, size_t size) { Mapped(address, size); },
            .unmapping = [this](void* address, size_t size) { Unmapping(address, size); },
            .notice = [this](const std::string& message) { Notice(message); }};
  }
  size_t mapped_count() const {
    absl::MutexLock lock(&mutex_);
    return mapped_.size();
  }
  std::vector<std::string> notices() const {
    absl::MutexLock lock(&mutex_);
    return notices_;
  }

 private:
  void Mapped(void* address, size_t size) {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(mapped_.insert({address, size}).second);
  }
  void Unmapping(void* address, size_t size) {
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(mapped_.erase({address, size}), 1u);
    static_cast<std::byte*>(address)[size - 1] = std::byte{1};  // still mapped
  }
  void Notice(const std::string& message) {
    absl::MutexLock lock(&mutex_);
    notices_.push_back(message);
  }

  mutable absl::Mutex mutex_;
  std::set<std::pair<void*, size_t>> mapped_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> notices_ ABSL_GUARDED_BY(mutex_);
};

TEST(MappedRegionTest, IsAlignedRoundedAndZero) {
  ASSERT_OK_AND_ASSIGN(const MappedRegion small, MappedRegion::Map(5000, {}));
  EXPECT_EQ(small.size(), 8192u);
  EXPECT_FALSE(small.huge_pages());
  ASSERT_OK_AND_ASSIGN(const MappedRegion large, MappedRegion::Map(3 * kMiB, {}));
  EXPECT_EQ(large.size(), 4 * kMiB);
  EXPECT_TRUE(IsAligned(large.data(), 2 * kMiB));
  EXPECT_EQ(large.data()[4 * kMiB - 1], std::byte{0});
  ASSERT_OK_AND_ASSIGN(const MappedRegion empty, MappedRegion::Map(0, {}));
  EXPECT_EQ(empty.data(), nullptr);
}

TEST(MappedRegionTest, PopulateFaultsEverythingIn) {
  ASSERT_OK_AND_ASSIGN(const MappedRegion lazy, MappedRegion::Map(4 * kMiB, {}));
  EXPECT_EQ(ResidentPages(lazy.data(), lazy.size()), 0u);
  for (const bool huge_pages : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const MappedRegion region,
                         MappedRegion::Map(20 * kMiB, {.huge_pages = huge_pages, .populate = true}));
    EXPECT_EQ(ResidentPages(region.data(), region.size()), region.size() / 4096);
  }
}

TEST(MappedRegionTest, MovesAndUnmaps) {
  ASSERT_OK_AND_ASSIGN(MappedRegion first, MappedRegion::Map(2 * kMiB, {}));
  std::byte* data = first.data();
  MappedRegion second(std::move(first));
  EXPECT_EQ(second.data(), data);
  second = MappedRegion();
  EXPECT_FALSE(IsMapped(data));
}

TEST(MappedRegionTest, NoMemoryIsAStatus) {
  EXPECT_FAILS(MappedRegion::Map(size_t{1} << 62, {}), absl::StatusCode::kResourceExhausted, "no memory");
}

TEST(MappedRegionTest, AForkedChildHasNoUnforkedRegionAndUnmapsNothing) {
  ASSERT_OK_AND_ASSIGN(MappedRegion region, MappedRegion::Map(2 * kMiB, {.dont_fork = true, .populate = true}));
  std::byte* const data = region.data();
  data[0] = std::byte{42};
  EXPECT_EQ(ExitStatusOf([&] {
              if (IsMapped(data) && data[0] == std::byte{42}) return 1;
              // Something else of the child's comes to lie there (a sanitizer's runtime may have been quicker); the
              // region's end must not take it away.
              void* there =
                  ::mmap(data, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
              if (there != data && errno != EEXIST) return 2;
              region = MappedRegion();
              return IsMapped(data) ? 0 : 3;
            }),
            0);
  std::memset(data, 1, region.size());
}

// Both sides of RLIMIT_MEMLOCK: within it the pages are locked, beyond it everything works unlocked.
TEST(MappedRegionTest, LocksPagesWithinTheLimitOnly) {
  const auto locks = [](rlim_t limit) {
    const rlimit limits{limit, limit};
    if (::setrlimit(RLIMIT_MEMLOCK, &limits) != 0) return 3;
    // Root may lock anything; another user may not.
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 3;
    const absl::StatusOr<MappedRegion> region = MappedRegion::Map(2 * kMiB, {.page_locked = true, .populate = true});
    if (!region.ok()) return 2;
    std::memset(region->data(), 1, region->size());
    return region->page_locked() ? 1 : 0;
  };
  EXPECT_EQ(ExitStatusOf([&] { return locks(64 << 10); }), 0);
  rlimit limits;
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &limits), 0);
  if (limits.rlim_max < 4 * kMiB) GTEST_SKIP() << "RLIMIT_MEMLOCK is too low to lock anything here";
  EXPECT_EQ(ExitStatusOf([&] { return locks(4 * kMiB); }), 1);
}

TEST(MemoryPoolTest, AlignsBySize) {
  MemoryPool pool({});
  for (const size_t size : {size_t{1}, size_t{4097}, 64 * kMiB / 1024, kMiB - 1, kMiB, 5 * kMiB + 1}) {
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(size));
    EXPECT_EQ(piece.size(), size);
    EXPECT_TRUE(IsAligned(piece.data(), size >= (64 << 10) ? 4096 : 64)) << size;
    EXPECT_EQ(pool.Owns(piece.data(), size), size >= kMiB) << size;
    std::memset(piece.data(), 1, size);
  }
  ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece empty, pool.Allocate(0));
  EXPECT_EQ(empty.size(), 0u);
  EXPECT_FAILS(pool.Allocate(SIZE_MAX), absl::StatusCode::kResourceExhausted, "no memory");
  EXPECT_FAILS(pool.Allocate(size_t{1} << 62), absl::StatusCode::kResourceExhausted, "no memory");
}

TEST(MemoryPoolTest, RecyclesWithinAQuarter) {
  MemoryPool pool({});
  std::byte* data = nullptr;
  {
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(20 * kMiB));
    EXPECT_FALSE(piece.touched());
    data = piece.data();
    EXPECT_EQ(pool.stats().held_bytes, 20 * kMiB);
  }
  EXPECT_EQ(pool.stats().held_bytes, 0u);
  EXPECT_EQ(pool.stats().kept_bytes, 20 * kMiB);
  EXPECT_FALSE(pool.Owns(data, 1)) << "kept is not live";
  {
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece smaller, pool.Allocate(16 * kMiB));
    EXPECT_EQ(smaller.data(), data);
    EXPECT_TRUE(smaller.touched());
    EXPECT_EQ(smaller.size(), 16 * kMiB);
  }
  {
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece much_smaller, pool.Allocate(10 * kMiB));
    EXPECT_NE(much_smaller.data(), data);
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece larger, pool.Allocate(20 * kMiB + 1));
    EXPECT_NE(larger.data(), data);
  }
  EXPECT_EQ(pool.stats().recycled_count, 1u);
  EXPECT_EQ(pool.stats().mapped_count, 3u);
}

TEST(MemoryPoolTest, KeepsTheBestFitAndTheNewest) {
  MemoryPool pool({.kept_bytes_max = 40 * kMiB});
  {
    ASSERT_OK_AND_ASSIGN(MemoryPool::Piece a, pool.Allocate(10 * kMiB));
    ASSERT_OK_AND_ASSIGN(MemoryPool::Piece b, pool.Allocate(12 * kMiB));
    ASSERT_OK_AND_ASSIGN(MemoryPool::Piece too_large, pool.Allocate(42 * kMiB));
    std::byte* const data_a = a.data();
    std::byte* const data_b = b.data();
    b = MemoryPool::Piece();
    a = MemoryPool::Piece();
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece best, pool.Allocate(9 * kMiB));
    EXPECT_EQ(best.data(), data_a);
    ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece second_best, pool.Allocate(9 * kMiB + kMiB / 2));
    EXPECT_EQ(second_best.data(), data_b);
  }
  EXPECT_EQ(pool.stats().kept_bytes, 22 * kMiB);
  { ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(30 * kMiB)); }
  EXPECT_EQ(pool.stats().kept_bytes, 40 * kMiB) << "the oldest piece made room";
  pool.Trim();
  EXPECT_EQ(pool.stats().kept_bytes, 0u);
}

TEST(MemoryPoolTest, OwnsOnlyWholeRangesOfOneLivePiece) {
  MemoryPool pool({});
  ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(2 * kMiB));
  EXPECT_TRUE(pool.Owns(piece.data(), 2 * kMiB));
  EXPECT_TRUE(pool.Owns(piece.data() + 5, 100));
  EXPECT_FALSE(pool.Owns(piece.data() - 1, 2));
  EXPECT_FALSE(pool.Owns(piece.data() + 5, 2 * kMiB));
  EXPECT_FALSE(pool.Owns(piece.data() + 5, SIZE_MAX));
  int on_the_stack = 0;
  EXPECT_FALSE(pool.Owns(&on_the_stack, sizeof on_the_stack));
}

TEST(MemoryPoolTest, PiecesOutliveThePool) {
  HookLog log;
  MemoryPool::Piece large, small;
  {
    MemoryPool pool({.hooks = log.hooks()});
    ASSERT_OK_AND_ASSIGN(large, pool.Allocate(3 * kMiB));
    ASSERT_OK_AND_ASSIGN(small, pool.Allocate(100));
    ASSERT_OK(pool.Allocate(5 * kMiB));
    EXPECT_EQ(log.mapped_count(), 2u);
  }
  EXPECT_EQ(log.mapped_count(), 1u) << "what was kept went with the pool";
  std::memset(large.data(), 1, large.size());
  std::memset(small.data(), 1, small.size());
  std::thread([piece = std::move(large)]() mutable {}).join();
  EXPECT_EQ(log.mapped_count(), 0u);
}

TEST(MemoryPoolTest, AForkedChildReadsAndDropsPiecesWhateverTheLockIsDoing) {
  MemoryPool pool({});
  ASSERT_OK_AND_ASSIGN(MemoryPool::Piece large, pool.Allocate(3 * kMiB));
  ASSERT_OK_AND_ASSIGN(MemoryPool::Piece small, pool.Allocate(100));
  large.data()[0] = small.data()[0] = std::byte{42};
  // Keeps the pool's lock busy, so that some of the forks happen while it is held.
  absl::Notification stop;
  std::thread churn([&] {
    while (!stop.HasBeenNotified()) EXPECT_OK(pool.Allocate(2 * kMiB));
  });
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(ExitStatusOf([&] {
                if (large.data()[0] != std::byte{42} || small.data()[0] != std::byte{42}) return 1;
                large = MemoryPool::Piece();
                small = MemoryPool::Piece();
                return 0;
              }),
              0);
  }
  stop.Notify();
  churn.join();
  EXPECT_EQ(large.data()[0], std::byte{42});
}

TEST(MemoryPoolTest, PageLockRefusedIsSaidOnce) {
  EXPECT_EQ(ExitStatusOf([&] {
              const rlimit limits{4096, 4096};
              if (::setrlimit(RLIMIT_MEMLOCK, &limits) != 0) return 3;
              if (::geteuid() == 0 && ::setuid(65534) != 0) return 3;
              size_t lock_notice_count = 0;
              MemoryPool pool({.page_locked = true, .hooks = {.notice = [&](const std::string& message) {
                                                      lock_notice_count +=
                                                          message.find("RLIMIT_MEMLOCK") != std::string::npos;
                                                    }}});
              const auto first = pool.Allocate(2 * kMiB);
              const auto second = pool.Allocate(2 * kMiB);
              return first.ok() && second.ok() && lock_notice_count == 1 ? 0 : 1;
            }),
            0);
}

TEST(MemoryPoolTest, FaultInBehindTouchesAllAndChangesNothing) {
  MemoryPool pool({});
  ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(40 * kMiB));
  const std::span<std::byte> whole(piece.data(), piece.size());
  const std::vector<std::span<std::byte>> ranges = {whole.first(10 * kMiB + 17), {}, whole.subspan(10 * kMiB + 17)};
  const std::shared_ptr<void> ticket = pool.FaultInBehind(ranges);
  // Writing meanwhile, as a disk would.
  for (size_t at = 0; at < whole.size(); at += 4096) whole[at] = std::byte{7};
  for (size_t at = 0; at < whole.size(); at += 4096) ASSERT_EQ(whole[at], std::byte{7});
  EXPECT_EQ(ResidentPages(piece.data(), 40 * kMiB), 40 * kMiB / 4096);
}

TEST(MemoryPoolTest, FaultInBehindGoesFrontToBackUntilDone) {
  MemoryPool pool({});
  ASSERT_OK_AND_ASSIGN(const MemoryPool::Piece piece, pool.Allocate(40 * kMiB));
  const std::span<std::byte> whole(piece.data(), piece.size());
  const std::shared_ptr<void> ticket = pool.FaultInBehind({&whole, 1});
  // The thread needs no more from us; the last page comes last.
  while (ResidentPages(piece.data() + 40 * kMiB - 4096, 4096) == 0) std::this_thread::yield();
  EXPECT_EQ(ResidentPages(piece.data(), 40 * kMiB), 40 * kMiB / 4096);
}

TEST(MemoryPoolTest, ADroppedTicketCutsTheRestShort) {
  constexpr size_t kSize = size_t{4} << 30;
  MemoryPool pool({.kept_bytes_max = 0});
  ASSERT_OK_AND_ASSIGN(MemoryPool::Piece piece, pool.Allocate(kSize));
  const std::span<std::byte> whole(piece.data(), piece.size());
  std::vector<std::shared_ptr<void>> tickets;
  for (int i = 0; i < 3; ++i) tickets.push_back(pool.FaultInBehind({&whole, 1}));
  tickets.clear();
  EXPECT_LT(ResidentPages(piece.data(), kSize), kSize / 4096);
  piece = MemoryPool::Piece();  // nobody faults in it any more
}

TEST(MemoryPoolTest, TicketsOutliveThePool) {
  MemoryPool::Piece piece;
  std::shared_ptr<void> ticket;
  {
    MemoryPool pool({});
    ASSERT_OK_AND_ASSIGN(piece, pool.Allocate(64 * kMiB));
    const std::span<std::byte> whole(piece.data(), piece.size());
    ticket = pool.FaultInBehind({&whole, 1});
  }
  ticket.reset();
  std::memset(piece.data(), 1, piece.size());
}

TEST(StagingArenaTest, HandsOutEveryBufferOnce) {
  ASSERT_OK_AND_ASSIGN(const auto arena, StagingArena::Create({.size = 3 * kMiB + 1, .buffer_size = kMiB}));
  EXPECT_EQ(arena->buffer_count(), 4u);
  EXPECT_EQ(arena->buffer_size(), kMiB);
  std::set<std::byte*> buffers;
  while (std::byte* buffer = arena->TryTake()) {
    EXPECT_TRUE(IsAligned(buffer, 4096));
    std::memset(buffer, 1, kMiB);
    buffers.insert(buffer);
  }
  EXPECT_EQ(buffers.size(), 4u);
  EXPECT_EQ(arena->free_count(), 0u);
  for (std::byte* buffer : buffers) arena->GiveBack(buffer);
  EXPECT_EQ(arena->free_count(), 4u);
}

TEST(StagingArenaTest, HasAtLeastTwoBuffersAndRefusesOddOnes) {
  ASSERT_OK_AND_ASSIGN(const auto arena, StagingArena::Create({.size = 1, .buffer_size = 64 << 10}));
  EXPECT_EQ(arena->buffer_count(), 2u);
  EXPECT_FAILS(StagingArena::Create({.buffer_size = 0}), absl::StatusCode::kInvalidArgument, "multiple of 4096");
  EXPECT_FAILS(StagingArena::Create({.buffer_size = 1000}), absl::StatusCode::kInvalidArgument, "multiple of 4096");
  EXPECT_FAILS(StagingArena::Create({.size = uint64_t{1} << 62}), absl::StatusCode::kResourceExhausted, "no memory");
}

TEST(StagingArenaTest, WaitersAreServedInOrder) {
  ASSERT_OK_AND_ASSIGN(const auto arena, StagingArena::Create({.size = 2 * kMiB, .page_locked = false}));
  std::byte* const first = arena->Take();
  std::byte* const second = arena->Take();
  constexpr int kWaiterCount = 5;
  absl::Mutex mutex;
  std::vector<int> order;
  std::vector<std::thread> waiters;
  for (int i = 0; i < kWaiterCount; ++i) {
    const uint64_t waiting_before = arena->waiting_count();
    waiters.emplace_back([&, i] {
      std::byte* buffer = arena->Take();
      {
        absl::MutexLock lock(&mutex);
        order.push_back(i);
      }
      arena->GiveBack(buffer);
    });
    while (arena->waiting_count() == waiting_before) std::this_thread::yield();
  }
  EXPECT_EQ(arena->TryTake(), nullptr) << "others wait";
  arena->GiveBack(first);  // one buffer goes from hand to hand
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  arena->GiveBack(second);
  EXPECT_EQ(arena->free_count(), 2u);
}

TEST(StagingArenaTest, ManyThreadsPassThroughTwoBuffers) {
  ASSERT_OK_AND_ASSIGN(const auto arena, StagingArena::Create({.size = 128 << 10, .buffer_size = 64 << 10}));
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 500; ++round) {
        std::byte* buffer = arena->Take();
        std::memset(buffer, i, 4096);
        for (size_t at = 0; at < 4096; ++at) ASSERT_EQ(buffer[at], std::byte(i)) << "shared with another";
        arena->GiveBack(buffer);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(arena->free_count(), 2u);
}

TEST(StagingArenaTest, AForkedChildEndsItWithoutHarm) {
  HookLog log;
  ASSERT_OK_AND_ASSIGN(auto arena, StagingArena::Create({.size = 4 * kMiB, .hooks = log.hooks()}));
  EXPECT_EQ(log.mapped_count(), 1u);
  std::byte* const buffer = arena->Take();
  buffer[0] = std::byte{42};
  EXPECT_EQ(ExitStatusOf([&] {
              if (IsMapped(buffer) && buffer[0] == std::byte{42}) return 1;  // the mapping came along
              arena.reset();
              return 0;
            }),
            0);
  std::memset(buffer, 1, arena->buffer_size());
  arena->GiveBack(buffer);
  arena.reset();
  EXPECT_EQ(log.mapped_count(), 0u);
}

TEST(StagingArenaDeathTest, AForeignBufferIsABrokenInvariant) {
  ASSERT_OK_AND_ASSIGN(const auto arena, StagingArena::Create({.size = 2 * kMiB, .page_locked = false}));
  std::byte* const buffer = arena->Take();
  EXPECT_DEATH(arena->GiveBack(buffer + 4096), "broken invariant");
  EXPECT_DEATH(arena->GiveBack(buffer - 64 * kMiB), "broken invariant");
}

}  // namespace
}  // namespace tensorshelf
