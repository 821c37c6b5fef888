// Compaction: stores are made full of holes, compacted, and compared byte by byte with what went in. Free space must be
// in one piece afterwards, a dry run must say the same beforehand, and whatever stops a run must leave the store whole.

#include "store/compact.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "store/extent_allocator.h"
#include "store/layout.h"
#include "store/verify.h"
#include "tests/store/modelled_store.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

class CompactTest : public ModelledStore {
 protected:
  void Drop(const std::string& name) {
    ASSERT_OK(Delete(name));
    model_.erase(name);
  }
  // Objects of many sizes, and every other of them deleted.
  void MakeHoles(int count) {
    std::mt19937_64 random(7);
    const uint64_t sizes[] = {5000, 20000, 70000, 150000, 400000, (1 << 20) + 5};
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
      names.push_back(absl::StrCat("n", i));
      ASSERT_NO_FATAL_FAILURE(Put(names.back(), sizes[random() % 6]));
    }
    for (size_t i = 0; i < names.size(); i += 2) ASSERT_NO_FATAL_FAILURE(Drop(names[i]));
  }
  CompactReport Compact(const CompactOptions& options = {}) {
    auto report = store_->Compact(options);
    EXPECT_OK(report);
    return report.ok() ? *report : CompactReport{};
  }
  void ExpectWholeAndSound() {
    ExpectWhole();
    ASSERT_OK_AND_ASSIGN(const VerifyReport verified, VerifyStore(*store_, "", {}));
    EXPECT_EQ(verified.damage_count, 0u);
  }
};

TEST_F(CompactTest, FreeSpaceEndsUpInOnePiece) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(120));
  const CompactReport report = Compact();
  EXPECT_GT(report.objects_moved, 10u);
  EXPECT_GT(report.bytes_moved, uint64_t{1} << 20);
  EXPECT_LT(report.after.fragmentation, report.before.fragmentation);
  EXPECT_EQ(report.after.free_bytes, report.before.free_bytes);
  EXPECT_GT(report.after.largest_free, report.after.free_bytes * 9 / 10);
  EXPECT_LT(report.after.free_runs, report.before.free_runs);
  ExpectWholeAndSound();
  const CompactReport again = Compact();
  EXPECT_EQ(again.objects_moved, 0u) << "what has no better place moves no more";
  Reopen();
  ExpectWholeAndSound();
}

TEST_F(CompactTest, ADryRunSaysWhatWouldCome) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(80));
  const CompactReport plan = Compact({.dry_run = true});
  EXPECT_GT(plan.objects_moved, 0u);
  EXPECT_EQ(Compact({.dry_run = true}).bytes_moved, plan.bytes_moved) << "a dry run changed something";
  const CompactReport report = Compact();
  EXPECT_EQ(report.objects_moved, plan.objects_moved);
  EXPECT_EQ(report.bytes_moved, plan.bytes_moved);
  EXPECT_EQ(report.after.largest_free, plan.after.largest_free);
  EXPECT_EQ(report.after.free_runs, plan.after.free_runs);
  EXPECT_DOUBLE_EQ(report.after.fragmentation, plan.after.fragmentation);
  ExpectWholeAndSound();
}

TEST_F(CompactTest, ADryRunNeedsNoWriter) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(40));
  ASSERT_OK(store_->Close());
  store_.reset();
  options_.mode = StoreOptions::Mode::kReadOnly;
  Open();
  EXPECT_GT(Compact({.dry_run = true}).objects_moved, 0u);
  EXPECT_EQ(KindOf(store_->Compact({}).status()), ErrorKind::kReadOnly);
  EXPECT_EQ(Difference(*store_, model_), "");
}

TEST_F(CompactTest, ClonesStayShared) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(40));
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store_->Begin());
  transaction.ClonePrefix("n", "copy/n");
  ASSERT_OK(transaction.Commit());
  for (const auto& [name, value] : Model(model_)) model_["copy/" + name] = value;
  const uint64_t live = store_->stats().space.live;
  EXPECT_GT(Compact().objects_moved, 0u);
  EXPECT_EQ(store_->stats().space.live, live);
  for (const auto& [name, value] : model_) {
    if (name[0] != 'n') continue;
    EXPECT_EQ(store_->Find(name)->record(), store_->Find("copy/" + name)->record());
  }
  ExpectWholeAndSound();
}

TEST_F(CompactTest, StripedObjectsKeepTheirDevices) {
  devices_ = {root_ + "/d1", root_ + "/d2"};
  Create(uint64_t{128} << 20);
  Open();
  ASSERT_NO_FATAL_FAILURE(Put("below", 20 << 20));
  ASSERT_NO_FATAL_FAILURE(MakeHoles(30));
  ASSERT_NO_FATAL_FAILURE(Put("striped", (17 << 20) + 321));
  const ObjectRecord before = store_->Find("striped")->record();
  ASSERT_EQ(before.columns.size(), 2u);
  ASSERT_NO_FATAL_FAILURE(Drop("below"));
  EXPECT_GT(Compact().objects_moved, 0u);
  const ObjectRecord after = store_->Find("striped")->record();
  for (size_t column = 0; column < 2; ++column) {
    EXPECT_EQ(after.columns[column][0].file_id, before.columns[column][0].file_id);
    EXPECT_LT(after.columns[column][0].first_unit, before.columns[column][0].first_unit);
  }
  ExpectWholeAndSound();
  Reopen();
  ExpectWholeAndSound();
}

TEST_F(CompactTest, DamagedObjectsAreReportedAndStay) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(40));
  ASSERT_NO_FATAL_FAILURE(Put("last", 150000));
  // The lowest of the small ones, so that it would move.
  ObjectRecord lowest;
  std::string name;
  for (const auto& [one, value] : model_) {
    const ObjectRecord record = store_->Find(one)->record();
    if (value.size >= kLargeObjectBytes) continue;
    if (lowest.columns.empty() || record.columns[0][0].first_unit < lowest.columns[0][0].first_unit) {
      lowest = record;
      name = one;
    }
  }
  FlipByte(store_->info().files[0].path, lowest.columns[0][0].offset() + 17);
  const CompactReport report = Compact();
  EXPECT_EQ(report.objects_damaged, 1u);
  ASSERT_EQ(report.damage.size(), 1u);
  EXPECT_NE(report.damage[0].find(name), std::string::npos) << report.damage[0];
  EXPECT_EQ(store_->Find(name)->record(), lowest);
  EXPECT_GT(report.objects_moved, 0u);
  model_.erase(name);
  ASSERT_OK(Delete(name));
  ExpectWholeAndSound();
}

TEST_F(CompactTest, StopsWhereItIsToldTo) {
  Create();
  Open();
  // More than go into one commit.
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store_->Begin());
  for (int i = 0; i < 1400; ++i) {
    const std::string name = absl::StrCat("n", i);
    model_[name] = {.size = 5000, .seed = model_.size()};
    const std::string bytes = model_[name].bytes();
    const PutItem item = BytesItem(name, bytes);
    ASSERT_OK(transaction.Put({&item, 1}));
  }
  ASSERT_OK(transaction.Commit());
  ASSERT_OK_AND_ASSIGN(Transaction deletes, store_->Begin());
  for (int i = 0; i < 1400; i += 2) {
    deletes.Delete(absl::StrCat("n", i));
    model_.erase(absl::StrCat("n", i));
  }
  ASSERT_OK(deletes.Commit());
  bool stop = false;
  const CompactReport report =
      Compact({.stop = [&] { return stop; }, .progress = [&](const CompactReport&) { stop = true; }});
  EXPECT_TRUE(report.stopped);
  EXPECT_GT(report.objects_moved, 0u);
  ExpectWholeAndSound();
  const CompactReport rest = Compact();
  EXPECT_FALSE(rest.stopped);
  EXPECT_GT(rest.objects_moved, 0u);
  ExpectWholeAndSound();
}

TEST_F(CompactTest, KeepsToItsRate) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(60));
  const uint64_t bytes = Compact({.dry_run = true}).bytes_moved;
  const absl::Time begin = absl::Now();
  EXPECT_EQ(Compact({.rate_bytes_per_s = bytes * 4}).bytes_moved, bytes);
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(240));
}

// A close waits for the piece at hand, not for a run that would take days at its rate.
TEST_F(CompactTest, ACloseEndsIt) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(120));
  absl::Notification waiting;
  absl::StatusOr<CompactReport> report;
  std::thread compacting([&] {
    int asked = 0;
    report = store_->Compact({.rate_bytes_per_s = 1, .stop = [&] {
                                if (++asked == 140) waiting.Notify();
                                return false;
                              }});
    if (!waiting.HasBeenNotified()) waiting.Notify();
  });
  waiting.WaitForNotification();
  ASSERT_OK(store_->Close());
  compacting.join();
  if (report.ok()) {
    EXPECT_TRUE(report->stopped);
  } else {
    EXPECT_EQ(KindOf(report.status()), ErrorKind::kClosed) << report.status();
  }
  store_.reset();
  Open();
  ExpectWholeAndSound();
}

TEST_F(CompactTest, BesidePutsAndDeletes) {
  Create();
  Open();
  ASSERT_NO_FATAL_FAILURE(MakeHoles(80));
  absl::Notification done;
  std::thread compacting([&] {
    do {
      const auto report = store_->Compact({});
      ASSERT_OK(report);
      ASSERT_EQ(report->objects_damaged, 0u);
    } while (!done.HasBeenNotified());
  });
  for (int i = 0; i < 60; ++i) {
    const std::string name = absl::StrCat("n", i * 7 % 80);
    if (i % 3 == 0 && model_.contains(name)) {
      Drop(name);
    } else {
      Put(name, i % 2 == 0 ? 30000 : 200000);
    }
  }
  done.Notify();
  compacting.join();
  ExpectWholeAndSound();
  Reopen();
  ExpectWholeAndSound();
}

}  // namespace
}  // namespace tensorshelf
