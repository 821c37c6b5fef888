// Goal: what a transfer's result means is judged the same everywhere, and no result is taken for a success that is
// none. Method: results are handed to a Transfer by hand; what it wants next is compared with the rule.

#include "engine/transfer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using Next = Transfer::Next;

class TransferTest : public ::testing::Test {
 protected:
  Transfer Make(IoKind kind, uint32_t length, uint32_t needed) {
    const IoBlock block{.file = file_.get(), .offset = 8192, .length = length, .needed = needed};
    return Transfer(kind, block, memory_, absl::Hours(1));
  }

  testing::MemoryDisk disk_{{.alignment = {.memory = 512, .offset = 512}}};
  std::unique_ptr<File> file_ = *disk_.Open("/file", {.writable = true, .create = true});
  std::byte memory_[16384];
};

TEST_F(TransferTest, AsksForTheWholeBlock) {
  Transfer transfer = Make(IoKind::kRead, 8192, 5000);
  EXPECT_EQ(transfer.op()->offset, 8192);
  EXPECT_EQ(transfer.op()->length, 8192);
  EXPECT_EQ(transfer.op()->memory, memory_);
  EXPECT_EQ(transfer.Take(8192), Next::kDone);
}

TEST_F(TransferTest, ReadMayEndOnceTheNeededBytesAreThere) {
  EXPECT_EQ(Make(IoKind::kRead, 8192, 5000).Take(5000), Next::kDone);
  EXPECT_EQ(Make(IoKind::kRead, 8192, 5000).Take(4999), Next::kAgain);
}

TEST_F(TransferTest, WriteNeedsItsPaddingToo) { EXPECT_EQ(Make(IoKind::kWrite, 8192, 5000).Take(5000), Next::kAgain); }

TEST_F(TransferTest, ShortTransferGoesOnFromTheLastAlignedBoundary) {
  Transfer transfer = Make(IoKind::kWrite, 8192, 8192);
  ASSERT_EQ(transfer.Take(1500), Next::kAgain);
  EXPECT_EQ(transfer.op()->offset, 8192 + 1024);
  EXPECT_EQ(transfer.op()->memory, memory_ + 1024);
  EXPECT_EQ(transfer.op()->length, 8192 - 1024);
  EXPECT_EQ(transfer.moved(), 1500);
  ASSERT_EQ(transfer.Take(1024), Next::kAgain);
  EXPECT_EQ(transfer.op()->offset, 8192 + 2048);
  EXPECT_EQ(transfer.Take(8192 - 2048), Next::kDone);
}

TEST_F(TransferTest, EndOfFileIsDataLossWithAllNumbers) {
  Transfer transfer = Make(IoKind::kRead, 8192, 5000);
  ASSERT_EQ(transfer.Take(0), Next::kFailed);
  EXPECT_FAILS(transfer.status(), absl::StatusCode::kDataLoss,
               "end of file in /file: wanted 5000 bytes at 8192, got 0");
}

TEST_F(TransferTest, EndOfFileInsideASectorIsFoundAtTheSecondTry) {
  Transfer transfer = Make(IoKind::kRead, 8192, 5000);
  ASSERT_EQ(transfer.Take(4700), Next::kAgain);
  EXPECT_EQ(transfer.op()->offset, 8192 + 4608);
  ASSERT_EQ(transfer.Take(4700 - 4608), Next::kFailed);
  EXPECT_FAILS(transfer.status(), absl::StatusCode::kDataLoss, "got 4700");
}

TEST_F(TransferTest, WriteOfNothingIsAnError) {
  Transfer transfer = Make(IoKind::kWrite, 4096, 4096);
  ASSERT_EQ(transfer.Take(0), Next::kFailed);
  EXPECT_FAILS(transfer.status(), absl::StatusCode::kInternal,
               "write of 4096 bytes at 8192 of /file: nothing was written");
}

TEST_F(TransferTest, ErrorsCarryPathOffsetLengthAndName) {
  Transfer transfer = Make(IoKind::kWrite, 4096, 4096);
  ASSERT_EQ(transfer.Take(-EIO), Next::kFailed);
  EXPECT_FAILS(transfer.status(), absl::StatusCode::kInternal, "write of 4096 bytes at 8192 of /file: EIO");
  Transfer full = Make(IoKind::kWrite, 4096, 4096);
  ASSERT_EQ(full.Take(-ENOSPC), Next::kFailed);
  EXPECT_FAILS(full.status(), absl::StatusCode::kResourceExhausted, "ENOSPC");
}

TEST_F(TransferTest, MoreThanWasAskedForIsAnError) {
  EXPECT_EQ(Make(IoKind::kRead, 4096, 4096).Take(4097), Next::kFailed);
}

TEST_F(TransferTest, InterruptedAndBusyAreRepeatedUnchanged) {
  Transfer transfer = Make(IoKind::kRead, 4096, 4096);
  EXPECT_EQ(transfer.Take(-EINTR), Next::kAgain);
  EXPECT_EQ(transfer.Take(-EAGAIN), Next::kAgainLater);
  EXPECT_EQ(transfer.op()->offset, 8192);
  EXPECT_EQ(transfer.Take(4096), Next::kDone);
}

TEST_F(TransferTest, BusyBeyondTheDeadlineIsAnError) {
  const IoBlock block{.file = file_.get(), .offset = 0, .length = 4096, .needed = 4096};
  Transfer transfer(IoKind::kRead, block, memory_, absl::ZeroDuration());
  ASSERT_EQ(transfer.Take(-EAGAIN), Next::kFailed);
  EXPECT_FAILS(transfer.status(), absl::StatusCode::kInternal, "EAGAIN");
}

}  // namespace
}  // namespace tensorshelf
