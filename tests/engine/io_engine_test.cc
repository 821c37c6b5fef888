// Goal: whatever the engine says OK to is in the file or the memory, byte for byte; whatever fails says where; done()
// comes once and nothing hangs. Method: seeded batches against a plain string on the disk in memory, then every rule
// for a failed call by a disk that fails it.

#include "engine/io_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/testing/faulty_disk.h"
#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::Call;
using testing::Effect;
using testing::FaultyDisk;
using testing::MemoryDisk;

constexpr uint64_t kUnit = 4096;

uint64_t RoundUpToUnit(uint64_t value) { return (value + kUnit - 1) / kUnit * kUnit; }

// Memory whose address is a multiple of 4096 plus `shift`.
class Memory {
 public:
  explicit Memory(uint64_t size, uint64_t shift = 0) : bytes_(size + shift + kUnit), size_(size) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    data_ = bytes_.data() + (kUnit - address % kUnit) % kUnit + shift;
  }
  std::byte* data() { return data_; }
  uint64_t size() const { return size_; }
  std::string text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  void Fill(const std::string& text) { std::memcpy(data_, text.data(), text.size()); }

 private:
  std::vector<std::byte> bytes_;
  uint64_t size_;
  std::byte* data_;
};

std::string RandomText(uint64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

std::unique_ptr<StagingArena> MakeArena(uint64_t buffer_count, uint64_t buffer_size) {
  auto arena = StagingArena::Create(
      {.size = buffer_count * buffer_size, .buffer_size = buffer_size, .page_locked = false, .hooks = {}});
  EXPECT_OK(arena);
  return *std::move(arena);
}

std::unique_ptr<IoEngine> MakeEngine(Disk* disk, StagingArena* arena, const IoEngineOptions& options) {
  auto engine = IoEngine::Create(disk, arena, options);
  EXPECT_OK(engine);
  return *std::move(engine);
}

std::string FileText(File& file) {
  std::string text(*file.Size(), '\0');
  EXPECT_OK(ReadExactly(file, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

// Small sizes, so that every kind of cut is frequent.
constexpr IoEngineOptions kSmallOptions{
    .worker_count = 2, .queue_depth = 4, .io_size = 65536, .small_size = 16384, .retry_deadline_ms = 50};

class IoEngineTest : public ::testing::Test {
 protected:
  explicit IoEngineTest(const IoEngineOptions& options = kSmallOptions) : options_(options) {
    file_ = *disk_.Open("/file", {.writable = true, .create = true});
    EXPECT_OK(file_->Allocate(1 << 20));
    Restart(options);
  }

  void Restart(const IoEngineOptions& options) {
    engine_.reset();
    engine_ = MakeEngine(&disk_, arena_.get(), options);
  }

  Segment Of(Memory& memory, uint64_t offset) {
    return {.file = file_.get(), .offset = offset, .memory = memory.data(), .length = memory.size()};
  }
  Batch BatchOf(IoKind kind, std::vector<Segment> segments) {
    return {.kind = kind, .priority = Priority::kForeground, .segments = std::move(segments), .done = {}};
  }
  // A worker may hold one between two looks at the work queue, so only an engine that has ended tells.
  void ExpectNoBufferLost() {
    engine_.reset();
    EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  }

  BatchResult Run(IoKind kind, std::vector<Segment> segments) {
    return engine_->Run(BatchOf(kind, std::move(segments)));
  }

  IoEngineOptions options_;
  MemoryDisk base_{{.alignment = {.memory = 512, .offset = 512}}};
  FaultyDisk disk_{&base_};
  std::unique_ptr<StagingArena> arena_ = MakeArena(4, 1 << 16);
  std::unique_ptr<File> file_;
  std::unique_ptr<IoEngine> engine_;
};

TEST_F(IoEngineTest, EmptyBatchesAndSegmentsAreDone) {
  EXPECT_OK(Run(IoKind::kWrite, {}).status);
  Memory memory(0);
  EXPECT_OK(Run(IoKind::kRead, {Of(memory, 0), Of(memory, 4096)}).status);
  int done_count = 0;
  Batch batch = BatchOf(IoKind::kRead, {});
  batch.done = [&](const BatchResult& result) { done_count += result.status.ok() ? 1 : 100; };
  engine_->Submit(std::move(batch));
  EXPECT_EQ(done_count, 1);
}

TEST_F(IoEngineTest, RefusesOptionsThatCannotWork) {
  const auto fails = [&](IoEngineOptions options, const std::string& text) {
    EXPECT_FAILS(IoEngine::Create(&disk_, arena_.get(), options), absl::StatusCode::kInvalidArgument, text);
  };
  const auto with = [](auto change) {
    IoEngineOptions options = kSmallOptions;
    change(options);
    return options;
  };
  fails(with([](IoEngineOptions& options) { options.worker_count = 0; }), "worker_count 0");
  fails(with([](IoEngineOptions& options) { options.queue_depth = 0; }), "queue_depth 0");
  fails(with([](IoEngineOptions& options) { options.io_size = 5000; }), "io_size 5000");
  fails(with([](IoEngineOptions& options) { options.io_size = 1 << 20; }), "staging buffers of 65536");
  fails(with([](IoEngineOptions& options) { options.small_size = 1 << 17; }), "small_size 131072");
}

TEST_F(IoEngineTest, RefusedSegmentIsNamedAndNothingMoves) {
  Memory memory(4096);
  const uint64_t written = disk_.count(Call::kPWrite);
  const BatchResult result = Run(IoKind::kWrite, {Of(memory, 0), Of(memory, 100)});
  EXPECT_FAILS(result.status, absl::StatusCode::kInvalidArgument, "not a multiple");
  EXPECT_EQ(result.failed_segment, 1u);
  EXPECT_EQ(disk_.count(Call::kPWrite), written);
}

TEST_F(IoEngineTest, PaddingIsZerosNeverHeapBytes) {
  const std::string before(65536, 'x');
  file_->PWrite(0, std::as_bytes(std::span(before)));
  Memory memory(5000, 1), second(100, 7);
  memory.Fill(std::string(5000, 'a'));
  second.Fill(std::string(100, 'b'));
  // Buffers full of something else first: a read leaves its bytes in them.
  Memory dirt(65536, 8);
  for (int i = 0; i < 4; ++i) ASSERT_OK(Run(IoKind::kRead, {Of(dirt, 0)}).status);
  ASSERT_OK(Run(IoKind::kWrite, {Of(memory, 0), Of(second, 8192)}).status);
  const std::string expected = std::string(5000, 'a') + std::string(8192 - 5000, '\0') + std::string(100, 'b') +
                               std::string(4096 - 100, '\0') + std::string(65536 - 12288, 'x');
  EXPECT_EQ(FileText(*file_).substr(0, 65536), expected);
}

TEST_F(IoEngineTest, ReadMayEndInsideTheLastUnit) {
  ASSERT_OK(file_->Truncate(10000));
  const std::string text = RandomText(10000, 1);
  file_->PWrite(0, std::as_bytes(std::span(text)));
  Memory memory(10000, 3);
  ASSERT_OK(Run(IoKind::kRead, {Of(memory, 0)}).status);
  EXPECT_EQ(memory.text(), text);
}

TEST_F(IoEngineTest, EndOfFileNamesTheSegmentThatMissesBytes) {
  ASSERT_OK(file_->Truncate(10000));
  Memory whole(4096, 1), missing(4096, 1);
  // Both are in one gathered read.
  const BatchResult result = Run(IoKind::kRead, {Of(missing, 8192), Of(whole, 0)});
  EXPECT_FAILS(result.status, absl::StatusCode::kDataLoss, "end of file in /file");
  EXPECT_EQ(result.failed_segment, 0u);
}

TEST_F(IoEngineTest, SmallRunIsOneTransferInTheCallersThread) {
  Memory memory(4096);
  const uint64_t submits = disk_.count(Call::kSubmit);
  const uint64_t writes = disk_.count(Call::kPWrite);
  ASSERT_OK(Run(IoKind::kWrite, {Of(memory, 4096)}).status);
  EXPECT_EQ(disk_.count(Call::kSubmit), submits);
  EXPECT_EQ(disk_.count(Call::kPWrite), writes + 1);
}

TEST_F(IoEngineTest, StatsCountTransfersAndCopies) {
  Memory aligned(131072), odd(65536, 64);
  ASSERT_OK(Run(IoKind::kWrite, {Of(aligned, 0)}).status);
  ASSERT_OK(Run(IoKind::kRead, {Of(odd, 0)}).status);
  const IoEngineStats stats = engine_->stats();
  EXPECT_EQ(stats.write_ops, 2u);
  EXPECT_EQ(stats.write_bytes, 131072u);
  EXPECT_EQ(stats.read_ops, 1u);
  EXPECT_EQ(stats.read_bytes, 65536u);
  EXPECT_EQ(stats.staged_bytes, 65536u);
  EXPECT_EQ(stats.failed_ops + stats.resubmitted_ops, 0u);
}

TEST_F(IoEngineTest, ChangedMemoryFailsAWriteInPlace) {
  Memory memory(65536 * 3);
  std::vector<Sum128> sums(12);
  Segment segment = Of(memory, 4096);
  segment.sums = sums.data();
  segment.sum_block = 16384;
  // The write of the second block reaches the device; then, before it is reaped, a byte of its third sum block changes.
  std::atomic<int> writes{0};
  disk_.OnCall([&](Call call, const std::string&) {
    if (call == Call::kCompletion && ++writes == 3) memory.data()[65536 + 2 * 16384 + 5] ^= std::byte{1};
  });
  options_.worker_count = 1;
  Restart(options_);
  const BatchResult result = Run(IoKind::kWrite, {segment});
  EXPECT_FAILS(result.status, absl::StatusCode::kAborted,
               "changed while it was written to /file, offset 102400, 16384 bytes");
}

TEST_F(IoEngineTest, ChangedMemoryFailsAnExactWriteToo) {
  // Of the sum blocks the third lies in the middle as a whole; the first is cut at a page of the file.
  for (const auto& [changed, told] :
       {std::pair(10000, "/file, offset 8292, 4096 bytes"), {2, "offset 100, 4096 bytes"}}) {
    Memory memory(20000, 100);
    Sum128 sums[5];
    Segment segment = Of(memory, 100);
    segment.edge = SegmentEdge::kExact;
    segment.sums = sums;
    segment.sum_block = 4096;
    disk_.OnCall([&memory, at = changed](Call call, const std::string&) {
      if (call == Call::kSubmit) memory.data()[at] ^= std::byte{1};
    });
    EXPECT_FAILS(Run(IoKind::kWrite, {segment}).status, absl::StatusCode::kAborted, told);
  }
}

// One random batch after the other against a string that is the file.
class ModelTest : public IoEngineTest {
 protected:
  void RunSeed(uint64_t seed, bool buffered, int batch_count) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    random_.seed(seed);
    file_ = *disk_.Open(absl::StrCat("/model", seed), {.writable = true, .create = true, .direct = !buffered});
    ASSERT_OK(file_->Allocate(kFileSize));
    model_ = std::string(kFileSize, '\0');
    for (int i = 0; i < batch_count && !HasFailure(); ++i) RunBatch(Below(2) == 0 ? IoKind::kRead : IoKind::kWrite);
    EXPECT_TRUE(FileText(*file_) == model_);
  }

 private:
  static constexpr uint64_t kFileSize = 4 << 20;

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  void RunBatch(IoKind kind) {
    std::deque<Memory> memories;
    std::deque<std::vector<Sum128>> sums;
    std::vector<Segment> segments;
    const bool exact = Below(2) == 0;
    uint64_t offset = Below(30000);
    for (uint64_t count = Below(12); count > 0; --count) {
      const uint64_t lengths[] = {Below(5000), 4096 * Below(10), 512 * Below(40), Below(200000), 0};
      const uint64_t length = lengths[Below(5)];
      if (!exact) offset = RoundUpToUnit(offset);
      if (offset + RoundUpToUnit(length) > kFileSize) break;
      memories.emplace_back(length, Below(2) == 0 ? 0 : Below(600));
      if (kind == IoKind::kWrite) memories.back().Fill(RandomText(length, random_()));
      segments.push_back(Of(memories.back(), offset));
      if (exact) segments.back().edge = SegmentEdge::kExact;
      if (Below(2) == 0) {
        segments.back().sum_block = 4096u << Below(6);
        sums.emplace_back(length / segments.back().sum_block + 1);
        segments.back().sums = sums.back().data();
      }
      if (kind == IoKind::kWrite) Model(segments.back());
      offset += length + (Below(2) == 0 ? 0 : Below(30000));
    }
    std::shuffle(segments.begin(), segments.end(), random_);
    ASSERT_OK(Run(kind, segments).status);
    for (const Segment& segment : segments) CheckSegment(segment);
  }

  void Model(const Segment& segment) {
    const auto* bytes = reinterpret_cast<const char*>(segment.memory);
    model_.replace(segment.offset, segment.length, bytes, segment.length);
    if (segment.edge == SegmentEdge::kExact) return;
    const uint64_t end = segment.offset + segment.length;
    std::fill_n(model_.begin() + end, RoundUpToUnit(segment.length) - segment.length, '\0');
  }

  void CheckSegment(const Segment& segment) {
    const std::string_view expected = std::string_view(model_).substr(segment.offset, segment.length);
    EXPECT_TRUE(std::memcmp(expected.data(), segment.memory, segment.length) == 0) << "at " << segment.offset;
    for (uint64_t i = 0; segment.sums != nullptr && i * segment.sum_block < segment.length; ++i) {
      const std::string_view block = expected.substr(i * segment.sum_block, segment.sum_block);
      EXPECT_EQ(segment.sums[i], Hash128(std::as_bytes(std::span(block)))) << "sum " << i << " of " << segment.offset;
    }
  }

  std::mt19937_64 random_;
  std::string model_;
};

TEST_F(ModelTest, RandomBatchesOnADirectFile) {
  for (uint64_t seed = 0; seed < 20 && !HasFailure(); ++seed) RunSeed(seed, false, 30);
}

TEST_F(ModelTest, RandomBatchesOnABufferedFile) {
  for (uint64_t seed = 100; seed < 106 && !HasFailure(); ++seed) RunSeed(seed, true, 30);
}

TEST_F(ModelTest, RandomBatchesWithShortTransfersAndPartialSubmits) {
  for (const uint64_t amount : {512u, 4096u, 20000u}) {
    disk_.Arm({.call = Call::kCompletion, .times = 0, .effect = Effect::kShorten, .amount = amount});
    disk_.Arm({.call = Call::kPRead, .times = 0, .effect = Effect::kShorten, .amount = amount});
    disk_.Arm({.call = Call::kPWrite, .times = 0, .effect = Effect::kShorten, .amount = amount});
    disk_.Arm({.call = Call::kSubmit, .times = 0, .effect = Effect::kShorten, .amount = 1});
    disk_.ReorderCompletions(amount);
    RunSeed(200 + amount, false, 10);
    disk_.DisarmAll();
    if (HasFailure()) return;
  }
  EXPECT_GT(engine_->stats().resubmitted_ops, 0u);
}

// Every call of kind `call` fails once, in turn: the batch fails or is right, and the engine works on.
class FaultTest : public IoEngineTest {
 protected:
  // Whether the k-th call of the kind, failing with `error_number`, makes a batch fail. Ends when there is no k-th
  // call.
  void SweepFaults(Call call, int error_number, bool batch_survives, const std::string& message) {
    for (uint64_t k = 1;; ++k) {
      SCOPED_TRACE(::testing::Message() << "call " << k);
      for (const IoKind kind : {IoKind::kWrite, IoKind::kRead}) {
        Memory large(200000, 64), exact(70000, 0), aligned(131072);
        const std::string text = RandomText(200000, k);
        if (kind == IoKind::kWrite) large.Fill(text);
        Segment edges = Of(exact, 500123);
        edges.edge = SegmentEdge::kExact;
        const uint64_t fired = disk_.fired_count();
        disk_.Arm({.call = call, .nth = k, .error_number = error_number});
        const BatchResult result = Run(kind, {Of(large, 0), edges, Of(aligned, 262144)});
        disk_.DisarmAll();
        if (disk_.fired_count() == fired) {
          EXPECT_OK(result.status);
          EXPECT_GT(k, 1u);
          ExpectNoBufferLost();
          return;
        }
        if (batch_survives) {
          EXPECT_OK(result.status);
          if (kind == IoKind::kWrite) {
            EXPECT_TRUE(FileText(*file_).substr(0, 200000) == text);
          }
        } else {
          EXPECT_FALSE(result.status.ok());
          EXPECT_NE(std::string(result.status.message()).find(message), std::string::npos) << result.status;
        }
        // The engine is as good as before.
        ASSERT_OK(Run(kind, {Of(large, 0)}).status);
      }
    }
  }
};

TEST_F(FaultTest, FailedCompletion) { SweepFaults(Call::kCompletion, EIO, false, "of /file: EIO"); }
TEST_F(FaultTest, BusyDevice) { SweepFaults(Call::kCompletion, EAGAIN, true, ""); }
TEST_F(FaultTest, SubmitRefusesTheFirstOp) { SweepFaults(Call::kSubmit, EINVAL, false, "of /file: EINVAL"); }
TEST_F(FaultTest, SubmitOfABadDescriptor) { SweepFaults(Call::kSubmit, EBADF, false, "of /file: EBADF"); }
TEST_F(FaultTest, SubmitIsInterrupted) { SweepFaults(Call::kSubmit, EINTR, true, ""); }
TEST_F(FaultTest, SubmitIsShortOfSlots) { SweepFaults(Call::kSubmit, EAGAIN, true, ""); }
TEST_F(FaultTest, ReapIsInterrupted) { SweepFaults(Call::kReap, EINTR, true, ""); }
TEST_F(FaultTest, ReapFailsOnce) { SweepFaults(Call::kReap, EIO, true, ""); }
TEST_F(FaultTest, PageCacheEdgeFails) {
  // Writes and reads of the caller's memory, by their own calls.
  Memory memory(100);
  Segment edge = Of(memory, 5);
  edge.edge = SegmentEdge::kExact;
  disk_.Arm({.call = Call::kPWrite, .error_number = ENOSPC});
  EXPECT_FAILS(Run(IoKind::kWrite, {edge}).status, absl::StatusCode::kResourceExhausted,
               "write of 100 bytes at 5 of /file: ENOSPC");
  disk_.Arm({.call = Call::kPRead, .error_number = EIO});
  EXPECT_FAILS(Run(IoKind::kRead, {edge}).status, absl::StatusCode::kInternal, "read of 100 bytes at 5 of /file: EIO");
  EXPECT_EQ(engine_->stats().failed_ops, 2u);
}

TEST_F(FaultTest, SubmitThatStaysShortOfSlotsNamesTheLimit) {
  Memory memory(300000, 64);
  disk_.Arm({.call = Call::kSubmit, .times = 0, .error_number = EAGAIN});
  EXPECT_FAILS(Run(IoKind::kWrite, {Of(memory, 0)}).status, absl::StatusCode::kResourceExhausted, "fs.aio-max-nr");
  disk_.DisarmAll();
  EXPECT_OK(Run(IoKind::kWrite, {Of(memory, 0)}).status);
}

TEST_F(FaultTest, SubmitWithoutMemoryFailsWhenNothingIsLeftToReap) {
  Memory memory(300000, 64);
  disk_.Arm({.call = Call::kSubmit, .times = 0, .error_number = ENOMEM});
  EXPECT_FAILS(Run(IoKind::kWrite, {Of(memory, 0)}).status, absl::StatusCode::kInternal, "ENOMEM");
  disk_.DisarmAll();
  EXPECT_OK(Run(IoKind::kWrite, {Of(memory, 0)}).status);
}

TEST_F(FaultTest, BusyBeyondTheDeadlineFails) {
  Memory memory(65536);
  disk_.Arm({.call = Call::kCompletion, .times = 0, .error_number = EAGAIN});
  EXPECT_FAILS(Run(IoKind::kWrite, {Of(memory, 0)}).status, absl::StatusCode::kInternal, "EAGAIN");
}

TEST_F(FaultTest, QueueThatCannotBeReapedIsReplaced) {
  Memory memory(300000, 64);
  disk_.Arm({.call = Call::kReap, .times = 0, .error_number = EINVAL});
  EXPECT_FAILS(Run(IoKind::kWrite, {Of(memory, 0)}).status, absl::StatusCode::kInternal, "reaping transfers: EINVAL");
  disk_.DisarmAll();
  EXPECT_OK(Run(IoKind::kWrite, {Of(memory, 0)}).status);
  ExpectNoBufferLost();
}

TEST_F(FaultTest, QueueThatCannotBeReplacedFailsEveryBatchUntilItCan) {
  Memory memory(300000, 64);
  disk_.Arm({.call = Call::kReap, .times = 0, .error_number = EINVAL});
  disk_.Arm({.call = Call::kNewQueue, .times = 0, .error_number = EAGAIN});
  EXPECT_FALSE(Run(IoKind::kWrite, {Of(memory, 0)}).status.ok());
  EXPECT_FALSE(Run(IoKind::kWrite, {Of(memory, 0)}).status.ok());
  disk_.DisarmAll();
  EXPECT_OK(Run(IoKind::kWrite, {Of(memory, 0)}).status);
}

TEST_F(FaultTest, FailedBatchIsNotSubmittedToItsEnd) {
  options_.worker_count = 1;
  Restart(options_);
  Memory memory(16 * 65536);
  disk_.Arm({.call = Call::kCompletion, .nth = 1, .error_number = EIO});
  const uint64_t before = disk_.count(Call::kCompletion);
  EXPECT_FALSE(Run(IoKind::kWrite, {Of(memory, 0)}).status.ok());
  // The queue's depth at most, of 16.
  EXPECT_LE(disk_.count(Call::kCompletion) - before, options_.queue_depth);
}

// The caller may free its memory when the call returns, also with an error.
TEST_F(FaultTest, AFailedBatchReturnsWhenNothingOfItIsInFlight) {
  options_.worker_count = 1;
  Restart(options_);
  Memory memory(8 * 65536);
  disk_.ReorderCompletions(3);  // one by one
  disk_.Arm({.call = Call::kCompletion, .nth = 1, .error_number = EIO});
  std::atomic<uint64_t> reaps = 0;
  // Not to order anything: it gives a return that comes too early the time to be seen.
  disk_.OnCall([&](Call call, const std::string&) {
    if (call == Call::kReap && reaps.fetch_add(1) > 0) absl::SleepFor(absl::Milliseconds(5));
  });
  EXPECT_FALSE(Run(IoKind::kWrite, {Of(memory, 0)}).status.ok());
  EXPECT_EQ(engine_->stats().in_flight_ops, 0u);
  disk_.OnCall(nullptr);
}

TEST_F(FaultTest, LowestFailedSegmentIsTold) {
  options_.worker_count = 1;
  Restart(options_);
  Memory first(65536), second(65536);
  disk_.Arm({.call = Call::kCompletion, .times = 0, .error_number = EIO});
  disk_.ReorderCompletions(7);
  for (int i = 0; i < 8; ++i) {
    const BatchResult result = Run(IoKind::kWrite, {Of(first, 0), Of(second, 65536)});
    EXPECT_FAILS(result.status, absl::StatusCode::kInternal, "at 0 of /file: EIO");
    EXPECT_EQ(result.failed_segment, 0u);
  }
}

TEST_F(IoEngineTest, SyncGivesEachFileItsOwnStatus) {
  std::vector<std::unique_ptr<File>> files;
  std::vector<File*> pointers;
  for (int i = 0; i < 40; ++i) {
    files.push_back(*disk_.Open(absl::StrCat("/sync", i), {.writable = true, .create = true}));
    pointers.push_back(files.back().get());
  }
  disk_.Arm({.call = Call::kSync, .times = 0, .path_part = "sync17"});
  const std::vector<absl::Status> statuses = engine_->Sync(pointers);
  ASSERT_EQ(statuses.size(), 40u);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(statuses[i].ok(), i != 17) << i;
  EXPECT_TRUE(engine_->Sync({}).empty());
  EXPECT_FAILS(engine_->Sync({pointers[17]})[0], absl::StatusCode::kInternal, "EIO");
}

// 64 batches of 1 MiB each in odd memory, 8 buffers for all of them and two engines.
TEST_F(IoEngineTest, ManyLargeBatchesPassThroughAFewBuffers) {
  const auto arena = MakeArena(8, 1 << 16);
  auto first = MakeEngine(&disk_, arena.get(), kSmallOptions);
  auto second = MakeEngine(&disk_, arena.get(), kSmallOptions);
  std::deque<Memory> memories;
  std::vector<std::string> texts;
  std::vector<std::unique_ptr<File>> files;
  std::vector<std::vector<Sum128>> sums(64, std::vector<Sum128>(16));
  std::atomic<int> ok_count{0};
  absl::BlockingCounter unfinished(64);
  for (int i = 0; i < 64; ++i) {
    files.push_back(*disk_.Open(absl::StrCat("/many", i), {.writable = true, .create = true}));
    texts.push_back(RandomText(1 << 20, i));
    memories.emplace_back(1 << 20, 64);
    memories.back().Fill(texts.back());
  }
  for (int i = 0; i < 64; ++i) {
    Segment segment = Of(memories[i], 0);
    segment.file = files[i].get();
    segment.sums = sums[i].data();
    Batch batch = BatchOf(IoKind::kWrite, {segment});
    batch.done = [&](const BatchResult& result) {
      ok_count += result.status.ok() ? 1 : 0;
      unfinished.DecrementCount();
    };
    (i % 2 == 0 ? first : second)->Submit(std::move(batch));
  }
  unfinished.Wait();
  EXPECT_EQ(ok_count, 64);
  first.reset();
  second.reset();
  EXPECT_EQ(arena->free_count(), 8u);
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(FileText(*files[i]) == texts[i]) << i;
    EXPECT_EQ(sums[i][15], Hash128(std::as_bytes(std::span(texts[i])).last(65536)));
  }
}

// Virtual disks complete what they have in bursts: while the bytes of one are copied, the next transfers must be with
// the device already.
TEST_F(IoEngineTest, ABurstIsNotCopiedToItsEndBeforeTheDeviceGetsMore) {
  constexpr uint64_t kBlock = 65536;
  constexpr uint64_t kDepth = 4;
  Restart({.worker_count = 1, .queue_depth = kDepth, .io_size = kBlock, .small_size = 16384, .retry_deadline_ms = 50});
  const std::string text = RandomText(12 * kBlock, 8);
  ASSERT_OK(WriteExactly(*file_, 0, std::as_bytes(std::span(text))));
  Memory memory(text.size(), 64);  // unaligned: every block is copied
  std::vector<size_t> copied_at_submit;
  disk_.OnCall([&](Call call, const std::string&) {
    if (call != Call::kSubmit) return;
    size_t copied = 0;
    while (copied < 12 && std::memcmp(memory.data() + copied * kBlock, text.data() + copied * kBlock, kBlock) == 0) {
      ++copied;
    }
    copied_at_submit.push_back(copied);
  });
  EXPECT_OK(engine_->Run(BatchOf(IoKind::kRead, {Of(memory, 0)})).status);
  disk_.OnCall(nullptr);
  ASSERT_GE(copied_at_submit.size(), 2u);
  EXPECT_EQ(copied_at_submit[0], 0u);
  EXPECT_EQ(copied_at_submit[1], 1u) << "one of the first burst was copied, then the device got the next transfer";
  EXPECT_EQ(memory.text(), text);
}

TEST_F(IoEngineTest, DestructionFinishesWhatWasSubmitted) {
  Memory memory(1 << 20, 64);
  const std::string text = RandomText(1 << 20, 5);
  memory.Fill(text);
  std::atomic<int> done_count{0};
  for (int i = 0; i < 10; ++i) {
    Batch batch = BatchOf(IoKind::kWrite, {Of(memory, 0)});
    batch.done = [&](const BatchResult& result) { done_count += result.status.ok() ? 1 : 0; };
    engine_->Submit(std::move(batch));
  }
  engine_.reset();
  EXPECT_EQ(done_count, 10);
  EXPECT_TRUE(FileText(*file_) == text);
}

// Records in which order the device is given the transfers of a single worker, which is held at its first submit until
// everything is queued.
class OrderTest : public IoEngineTest {
 protected:
  OrderTest() {
    options_.worker_count = 1;
    Restart(options_);
    for (const char* path : {"/hold", "/large", "/small", "/background"}) {
      files_.push_back(*disk_.Open(path, {.writable = true, .create = true}));
    }
    disk_.OnCall([this](Call call, const std::string& path) {
      if (call == Call::kSubmit && !held_.HasBeenNotified()) {
        held_.Notify();
        go_on_.WaitForNotification();
      }
      if (call != Call::kCompletion || path == "/hold") return;
      absl::MutexLock lock(&mutex_);
      order_.push_back(path[1]);
    });
    Queue(0, 65536, 1, Priority::kForeground);
    held_.WaitForNotification();
  }

  // One batch of `count` segments.
  void Queue(int file, uint64_t length, uint64_t count, Priority priority) {
    Batch batch = BatchOf(IoKind::kWrite, {});
    batch.priority = priority;
    for (uint64_t i = 0; i < count; ++i) {
      memories_.emplace_back(length);
      Segment segment = Of(memories_.back(), 2 * i * length);
      segment.file = files_[file].get();
      batch.segments.push_back(segment);
    }
    batch.done = [](const BatchResult& result) { EXPECT_OK(result.status); };
    engine_->Submit(std::move(batch));
  }

  // The initials of the files in the order of their transfers.
  std::string Order() {
    go_on_.Notify();
    engine_.reset();
    absl::MutexLock lock(&mutex_);
    return order_;
  }

  std::vector<std::unique_ptr<File>> files_;
  std::deque<Memory> memories_;
  absl::Notification held_, go_on_;
  absl::Mutex mutex_;
  std::string order_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(OrderTest, SmallOvertakesLargeAndBackground) {
  Queue(3, 4096, 100, Priority::kBackground);
  Queue(1, 65536, 100, Priority::kForeground);
  Queue(2, 4096, 10, Priority::kForeground);
  const std::string order = Order();
  EXPECT_EQ(order.size(), 210u);
  // 10 small ones among at most 3 large and 1 background of each 16.
  EXPECT_LT(order.rfind('s'), 16u) << order;
  EXPECT_LT(std::count(order.begin(), order.begin() + 100, 'b'), 10) << order;
}

TEST_F(OrderTest, BackgroundIsNeverShutOut) {
  Queue(2, 4096, 64, Priority::kForeground);
  Queue(1, 65536, 64, Priority::kForeground);
  Queue(3, 4096, 4, Priority::kBackground);
  const std::string order = Order();
  EXPECT_EQ(std::count(order.begin(), order.begin() + 64, 'b'), 4) << order;
  EXPECT_GE(std::count(order.begin(), order.begin() + 64, 'l'), 8) << order;
}

TEST_F(OrderTest, LargeBatchesTakeTurns) {
  Queue(1, 65536, 50, Priority::kForeground);
  Queue(2, 65536, 50, Priority::kForeground);
  const std::string order = Order();
  EXPECT_EQ(std::count(order.begin(), order.begin() + 20, 's'), 10) << order;
}

TEST_F(IoEngineTest, ConcurrentCallersEachGetTheirOwnBytes) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        const uint64_t size = 3000 + 1000 * ((t * 7 + i) % 40);
        const std::string text = RandomText(size, t * 1000 + i);
        Memory out(size, t % 2 * 64), in(size, 64 - t % 2 * 64);
        out.Fill(text);
        ASSERT_OK(engine_->Run(BatchOf(IoKind::kWrite, {Of(out, t * 65536)})).status);
        ASSERT_OK(engine_->Run(BatchOf(IoKind::kRead, {Of(in, t * 65536)})).status);
        ASSERT_TRUE(in.text() == text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Neighbours in one page, written at once through the page cache and beside direct middles.
TEST_F(IoEngineTest, NeighboursInOneSectorLoseNothing) {
  const std::string text = RandomText(200 * 1000, 3);
  Memory memory(text.size());
  memory.Fill(text);
  std::vector<Segment> segments;
  for (uint64_t at = 0; at < text.size(); at += 1000) {
    segments.push_back({.file = file_.get(),
                        .offset = at + 300,
                        .memory = memory.data() + at,
                        .length = 1000,
                        .edge = SegmentEdge::kExact});
  }
  ASSERT_OK(Run(IoKind::kWrite, segments).status);
  EXPECT_TRUE(FileText(*file_).substr(300, text.size()) == text);
}

}  // namespace
}  // namespace tensorshelf
