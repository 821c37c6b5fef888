// Files join and leave a store that is open: capacity, contents and accounting are compared before and after, beside
// puts and readers, over reopens, and after every step that a crash may follow.

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "store/drain.h"
#include "store/grow_store.h"
#include "store/structure_check.h"
#include "store/uuid.h"
#include "store/verify.h"
#include "tests/store/modelled_store.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class GrowOnlineTest : public ModelledStore {
 protected:
  std::vector<std::string> Findings() {
    std::vector<std::string> codes;
    const auto report = CheckStructure(path_, {.on_finding = [&](const Finding& finding) {
                                         codes.push_back(absl::StrCat(finding.code, ": ", finding.message));
                                       }});
    EXPECT_OK(report);
    return codes;
  }
};

TEST_F(GrowOnlineTest, CapacityIsThereAtOnceAndAfterAReopen) {
  Create(8 * kMiB);
  Open();
  ASSERT_NO_FATAL_FAILURE(Put("a", 5 * kMiB));
  const std::string large = RandomBytes(9 * kMiB, 1);
  EXPECT_EQ(KindOf(store_->Put(BytesItem("large", large)).status()), ErrorKind::kFull);
  ASSERT_OK_AND_ASSIGN(const GrowReport report, store_->Grow({.capacity = 16 * kMiB}));
  EXPECT_EQ(report.capacity, 16 * kMiB);
  ASSERT_EQ(report.files.size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(report.files[0]));
  EXPECT_EQ(store_->stats().space.capacity, 24 * kMiB);
  EXPECT_EQ(store_->info().files.size(), 2u);
  ASSERT_NO_FATAL_FAILURE(Put("large", 9 * kMiB));
  ExpectWhole();
  Reopen();
  EXPECT_EQ(store_->stats().space.capacity, 24 * kMiB);
  ExpectWhole();
  ASSERT_OK(store_->Close());
  store_.reset();
  EXPECT_EQ(Findings(), std::vector<std::string>());
}

TEST_F(GrowOnlineTest, ANewDeviceTakesStripes) {
  Create(64 * kMiB);
  Open();
  ASSERT_OK_AND_ASSIGN(const GrowReport report, store_->Grow({.capacity = 64 * kMiB, .devices = {root_ + "/second"}}));
  EXPECT_EQ(report.files[0], root_ + "/second/00000002.tsd");
  ASSERT_NO_FATAL_FAILURE(Put("striped", 20 * kMiB));
  EXPECT_EQ(store_->Find("striped")->record().columns.size(), 2u);
  ExpectWhole();
  Reopen();
  ExpectWhole();
  EXPECT_EQ(KindOf(Store::Open(path_, options_).status()), ErrorKind::kLocked);
}

TEST_F(GrowOnlineTest, WhatCannotGrowLeavesNothing) {
  Create(8 * kMiB);
  Open();
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Grow({.capacity = kMiB}).status()));
  std::filesystem::create_directory(root_ + "/full");
  std::filesystem::create_directory(root_ + "/full/of");
  EXPECT_TRUE(absl::IsAlreadyExists(store_->Grow({.capacity = 8 * kMiB, .devices = {root_ + "/full"}}).status()));
  EXPECT_EQ(store_->info().files.size(), 1u);
  ASSERT_OK(store_->Close());
  store_.reset();
  EXPECT_EQ(Findings(), std::vector<std::string>());
}

TEST_F(GrowOnlineTest, BesidePutsAndAReaderInAnotherHandle) {
  Create(16 * kMiB);
  Open();
  ASSERT_NO_FATAL_FAILURE(Put("first", 300000));
  StoreOptions reading = options_;
  reading.mode = StoreOptions::Mode::kReadOnly;
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> reader, Store::Open(path_, reading));
  absl::Notification done;
  std::thread growing([&] {
    for (int i = 0; i < 3; ++i) ASSERT_OK(store_->Grow({.capacity = 8 * kMiB}));
    done.Notify();
  });
  for (int i = 0; i < 20 || !done.HasBeenNotified(); ++i) {
    ASSERT_NO_FATAL_FAILURE(Put(absl::StrCat("n", i % 10), 200000));
  }
  growing.join();
  // More than the first file holds.
  for (int i = 0; i < 8; ++i) ASSERT_NO_FATAL_FAILURE(Put(absl::StrCat("m", i), 4 * kMiB));
  ExpectWhole();
  ASSERT_OK(reader->CatchUp());
  EXPECT_EQ(Difference(*reader, model_), "");
}

TEST_F(GrowOnlineTest, ADrainedDeviceIsGone) {
  devices_ = {root_ + "/d1", root_ + "/d2"};
  Create(128 * kMiB);
  Open();
  for (int i = 0; i < 20; ++i) ASSERT_NO_FATAL_FAILURE(Put(absl::StrCat("n", i), 5000 + 150000 * (i % 4)));
  ASSERT_NO_FATAL_FAILURE(Put("striped", 20 * kMiB));
  const std::string uuid = UuidText(store_->info().files[1].device_uuid);
  ASSERT_OK_AND_ASSIGN(const DrainReport report, store_->Drain(uuid, {}));
  EXPECT_GT(report.objects_moved, 0u);
  ASSERT_EQ(report.files.size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(report.files[0]));
  EXPECT_EQ(store_->info().files.size(), 1u);
  EXPECT_EQ(store_->stats().space.capacity, 64 * kMiB);
  ASSERT_NO_FATAL_FAILURE(Put("after", 300000));
  ExpectWhole();
  Reopen();
  ExpectWhole();
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Drain(root_ + "/d1", {}).status())) << "the only device left";
  EXPECT_TRUE(absl::IsNotFound(store_->Drain(root_ + "/d3", {}).status()));
  ASSERT_OK(store_->Close());
  store_.reset();
  EXPECT_EQ(Findings(), std::vector<std::string>());
}

TEST_F(GrowOnlineTest, ReadersHoldADeviceUntilTheyLetGo) {
  devices_ = {root_ + "/d1", root_ + "/d2"};
  Create(128 * kMiB);
  Open();
  ASSERT_NO_FATAL_FAILURE(Put("striped", 20 * kMiB));
  ASSERT_OK_AND_ASSIGN(Object held, store_->Find("striped"));
  const absl::Status busy = store_->Drain(root_ + "/d2", {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(busy)) << busy;
  EXPECT_NE(busy.message().find("readers still hold"), std::string::npos) << busy;
  EXPECT_EQ(ReadAll(held), model_["striped"].bytes());
  held = Object();
  // It took new data again meanwhile.
  ASSERT_NO_FATAL_FAILURE(Put("striped too", 20 * kMiB));
  EXPECT_EQ(store_->Find("striped too")->record().columns.size(), 2u);
  ASSERT_OK(store_->Drain(root_ + "/d2", {}));
  ExpectWhole();
}

TEST_F(GrowOnlineTest, WithoutRoomOrWithDamageADeviceStays) {
  devices_ = {root_ + "/d1", root_ + "/d2"};
  Create(64 * kMiB);
  Open();
  ASSERT_NO_FATAL_FAILURE(Put("striped", 40 * kMiB));
  EXPECT_EQ(KindOf(store_->Drain(root_ + "/d1", {}).status()), ErrorKind::kFull);
  ASSERT_OK(Delete("striped"));
  model_.clear();
  ASSERT_NO_FATAL_FAILURE(Put("striped", 17 * kMiB));
  const Extent extent = store_->Find("striped")->record().columns[1][0];
  FlipByte(store_->info().files[1].path, extent.offset() + 100);
  const absl::Status damaged = store_->Drain(root_ + "/d2", {}).status();
  EXPECT_TRUE(absl::IsDataLoss(damaged)) << damaged;
  EXPECT_EQ(store_->info().files.size(), 2u);
  ASSERT_OK(Delete("striped"));
  model_.clear();
  ASSERT_OK(store_->Drain(root_ + "/d2", {}));
  ExpectWhole();
}

}  // namespace
}  // namespace tensorshelf
