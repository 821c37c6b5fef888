// The k-th call of each kind fails, for k = 1, 2, ... until the workload makes fewer: nothing crashes, every error has
// a type, and a reopen without faults finds every acknowledged change and each other one whole or not at all.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/linux_disk.h"
#include "tests/store/shelf_copy.h"
#include "tests/testing/faulty_disk.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::Call;
using testing::Effect;
using testing::Fault;
using testing::FaultyDisk;
using testing::IsOk;

ModelOp PutOp(const std::string& name, uint64_t size, uint64_t seed) {
  return {.kind = ModelOp::Kind::kPut, .name = name, .value = {.size = size, .seed = seed}};
}

// Fails the `nth` operation of one kind, or lets it be done and fails it then.
class FailingObserver : public IndexFileObserver {
 public:
  FailingObserver(IndexFileOp::Kind kind, uint64_t nth, absl::Status status)
      : kind_(kind), nth_(nth), status_(std::move(status)) {}
  absl::Status Before(const IndexFileOp& op) override {
    if (op.kind != kind_ || count_.fetch_add(1) + 1 != nth_) return absl::OkStatus();
    fired_ = true;
    return status_;
  }
  bool fired() const { return fired_; }

 private:
  const IndexFileOp::Kind kind_;
  const uint64_t nth_;
  const absl::Status status_;
  std::atomic<uint64_t> count_{0};
  std::atomic<bool> fired_{false};
};

class FaultTest : public ShelfCopyFixture {
 protected:
  ~FaultTest() override { testing::ReportTried(static_cast<uint64_t>(tried_), 0); }

  FaultTest() { MakeOriginal({PutOp("old/a", 100000, 1), PutOp("old/b", 300, 2), PutOp("old/c", 5000, 3)}); }

  static std::vector<ModelOp> Workload() {
    using Kind = ModelOp::Kind;
    return {PutOp("a", 120000, 4),
            PutOp("inline", 50, 5),
            PutOp("old/a", 6000, 6),
            {.kind = Kind::kDelete, .name = "old/b"},
            {.kind = Kind::kClone, .name = "a", .to = "d"},
            {.kind = Kind::kTransaction,
             .parts = {PutOp("e", 70000, 7), {.kind = Kind::kDelete, .name = "old/c"}, PutOp("f", 10, 8)}},
            {.kind = Kind::kFlush},
            PutOp("last", 9000, 9)};
  }

  // Runs the workload on a fresh copy, then opens what it left without faults. Returns what is wrong, or "".
  std::string Try(Disk* disk, IndexFileObserver* observer, const std::function<bool()>& sync_failed) {
    std::vector<Model> possible{model_};
    {
      StoreOptions options = SmallOptions();
      options.disk = disk;
      options.index.observer = observer;
      auto store = Store::Open(shelf_, options);
      if (!store.ok()) {
        if (const std::string problem = Untyped(store.status()); !problem.empty()) return "open: " + problem;
      } else {
        const bool failed_in_open = sync_failed();
        for (const ModelOp& op : Workload()) {
          const bool lost_file = sync_failed() && !failed_in_open;
          const absl::Status status = Apply(**store, op);
          if (const std::string problem = Follow(op, status, possible); !problem.empty()) {
            return Describe(op) + ": " + problem;
          }
          if (status.ok() && lost_file && NeedsExtents(op)) {
            return Describe(op) + " was acknowledged on a file whose fdatasync had failed";
          }
        }
        const SpaceBytes space = (*store)->stats().space;
        if (space.reserved != 0) return absl::StrCat(space.reserved, " bytes stay reserved");
        if (const absl::Status closed = (*store)->Close(); !closed.ok()) {
          if (const std::string problem = Untyped(closed); !problem.empty()) return "close: " + problem;
        }
      }
    }
    auto store = Store::Open(shelf_, SmallOptions());
    if (!store.ok()) return "reopen: " + store.status().ToString();
    std::string difference;
    for (const Model& model : possible) {
      difference = Difference(**store, model);
      if (difference.empty()) return "";
    }
    return "after the reopen: " + difference;
  }

  static std::string Untyped(const absl::Status& status) {
    const bool typed = absl::IsInternal(status) || absl::IsResourceExhausted(status) || absl::IsNotFound(status) ||
                       absl::IsFailedPrecondition(status) || absl::IsDataLoss(status) || absl::IsUnavailable(status) ||
                       absl::IsPermissionDenied(status);
    return typed && !status.message().empty() ? "" : "an error without a type: " + status.ToString();
  }

  // An acknowledged change is in every model from now on; a failed one may be there or not when its outcome is unknown.
  static std::string Follow(const ModelOp& op, const absl::Status& status, std::vector<Model>& possible) {
    if (!status.ok()) {
      // A change that builds on one that did not happen fails as it should.
      const bool follows =
          std::any_of(possible.begin(), possible.end(), [&](Model model) { return Apply(model, op) == status.code(); });
      if (!follows) {
        if (const std::string problem = Untyped(status); !problem.empty()) return problem;
      }
      if (KindOf(status) != ErrorKind::kLatched) return "";
    }
    std::vector<Model> next = status.ok() ? std::vector<Model>{} : possible;
    for (Model model : possible) {
      if (Apply(model, op) != absl::StatusCode::kOk) continue;
      if (std::find(next.begin(), next.end(), model) == next.end()) next.push_back(std::move(model));
    }
    if (next.empty()) return "acknowledged, although it could not be done";
    possible = std::move(next);
    return "";
  }

  static bool NeedsExtents(const ModelOp& op) {
    return (op.kind == ModelOp::Kind::kPut && op.value.size > 1024) ||
           std::any_of(op.parts.begin(), op.parts.end(), NeedsExtents);
  }

  // Every `step`-th; all of them at a larger scale.
  void TryEveryCall(Fault fault, uint64_t step = 1) {
    if (testing::Scale() > 1) step = 1;
    const std::unique_ptr<Disk> base = NewLinuxDisk();
    for (fault.nth = 1;; fault.nth += step) {
      Restore();
      FaultyDisk disk(base.get());
      disk.Arm(fault);
      const bool is_sync = fault.call == Call::kSync && fault.path_part == ".tsd";
      const std::string problem = Try(&disk, nullptr, [&] { return is_sync && disk.fired_count() > 0; });
      ASSERT_EQ(problem, "") << "call kind " << static_cast<int>(fault.call) << " number " << fault.nth << ", effect "
                             << static_cast<int>(fault.effect) << ", errno " << fault.error_number;
      ++tried_;
      if (disk.fired_count() == 0) break;
    }
  }

  void TryEveryIndexCall(IndexFileOp::Kind kind, const absl::Status& status, uint64_t step = 1) {
    if (testing::Scale() > 1) step = 1;
    for (uint64_t nth = 1;; nth += step) {
      Restore();
      FailingObserver observer(kind, nth, status);
      const std::string problem = Try(nullptr, &observer, [] { return false; });
      ASSERT_EQ(problem, "") << "index operation kind " << static_cast<int>(kind) << " number " << nth << ", "
                             << status;
      ++tried_;
      if (!observer.fired()) break;
    }
  }

  int tried_ = 0;
};

TEST_F(FaultTest, SyncFails) {
  for (const int error : {EIO, ENOSPC}) {
    TryEveryCall({.call = Call::kSync, .path_part = ".tsd", .error_number = error});
    TryEveryCall({.call = Call::kSync, .path_part = ".tsd", .effect = Effect::kFailAfter, .error_number = error});
  }
  TryEveryCall({.call = Call::kSync, .path_part = "freemap"});
  EXPECT_GT(tried_, 20);
}

TEST_F(FaultTest, TransfersFail) {
  for (const Effect effect : {Effect::kFail, Effect::kFailAfter}) {
    TryEveryCall({.call = Call::kCompletion, .effect = effect});
    TryEveryCall({.call = Call::kPWrite, .effect = effect});
  }
  for (const int error : {ENOSPC, EAGAIN, EINTR}) {
    TryEveryCall({.call = Call::kCompletion, .error_number = error}, 2);
    TryEveryCall({.call = Call::kPWrite, .error_number = error}, 3);
  }
  TryEveryCall({.call = Call::kPRead}, 5);
  TryEveryCall({.call = Call::kPRead, .error_number = EINTR}, 11);
  EXPECT_GT(tried_, 40);
}

TEST_F(FaultTest, TransfersAreShort) {
  for (const uint64_t amount : {uint64_t{0}, uint64_t{4096}}) {
    TryEveryCall({.call = Call::kCompletion, .effect = Effect::kShorten, .amount = amount}, 2);
    TryEveryCall({.call = Call::kPWrite, .effect = Effect::kShorten, .amount = amount}, 3);
    TryEveryCall({.call = Call::kPRead, .effect = Effect::kShorten, .amount = amount}, 7);
  }
}

TEST_F(FaultTest, QueuesFail) {
  for (const int error : {EIO, EAGAIN, EINTR, EINVAL}) {
    TryEveryCall({.call = Call::kSubmit, .error_number = error}, 2);
  }
  TryEveryCall({.call = Call::kSubmit, .effect = Effect::kShorten, .amount = 1}, 3);
  TryEveryCall({.call = Call::kReap, .error_number = EINTR}, 3);
  TryEveryCall({.call = Call::kNewQueue, .error_number = EAGAIN});
}

TEST_F(FaultTest, NamesFail) {
  for (const Call call : {Call::kOpen, Call::kRename, Call::kAllocate, Call::kTruncate, Call::kSyncDirectory,
                          Call::kStat, Call::kList, Call::kSpace, Call::kLock, Call::kRemove, Call::kSize}) {
    TryEveryCall({.call = call, .error_number = EIO});
  }
  TryEveryCall({.call = Call::kOpen, .error_number = ENOSPC}, 2);
  TryEveryCall({.call = Call::kRename, .effect = Effect::kFailAfter});
  TryEveryCall({.call = Call::kAllocate, .error_number = ENOSPC});
}

TEST_F(FaultTest, TheLogOfTheIndexFails) {
  const absl::Status error = absl::InternalError("EIO that the test injects");
  const absl::Status full = absl::ResourceExhaustedError("ENOSPC that the test injects");
  TryEveryIndexCall(IndexFileOp::Kind::kSync, error);
  TryEveryIndexCall(IndexFileOp::Kind::kAppend, error, 3);
  TryEveryIndexCall(IndexFileOp::Kind::kAppend, full, 5);
  TryEveryIndexCall(IndexFileOp::Kind::kSyncDirectory, error);
  TryEveryIndexCall(IndexFileOp::Kind::kRename, error);
  TryEveryIndexCall(IndexFileOp::Kind::kCreate, full, 2);
  EXPECT_GT(tried_, 20);
}

// A creation that fails leaves nothing, and the next one works.
TEST_F(FaultTest, CreationFails) {
  const std::unique_ptr<Disk> base = NewLinuxDisk();
  for (const Call call : {Call::kOpen, Call::kSync, Call::kAllocate, Call::kPWrite, Call::kRename, Call::kMakeDirectory,
                          Call::kSyncDirectory, Call::kLock, Call::kStat, Call::kSpace, Call::kNewQueue}) {
    for (uint64_t nth = 1;; ++nth) {
      FaultyDisk disk(base.get());
      disk.Arm({.call = call, .nth = nth});
      CreateOptions options;
      options.capacity = kCapacityMin;
      options.prefill = Prefill::kNone;
      options.disk = &disk;
      const std::string path = root_ + "/created";
      const absl::Status status = Store::Create(path, options);
      if (disk.fired_count() == 0) {
        EXPECT_OK(status);
      } else if (!status.ok()) {
        EXPECT_EQ(Untyped(status), "");
        EXPECT_FALSE(std::filesystem::exists(path)) << "call kind " << static_cast<int>(call) << " number " << nth;
        options.disk = nullptr;
        EXPECT_OK(Store::Create(path, options));
      }
      EXPECT_OK(Store::Open(path, SmallOptions())) << "call kind " << static_cast<int>(call) << " number " << nth;
      std::filesystem::remove_all(path);
      ++tried_;
      if (disk.fired_count() == 0) break;
    }
  }
}

}  // namespace
}  // namespace tensorshelf
