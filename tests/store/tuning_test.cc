// The search for the best way to drive a device, on a made-up device whose best setting is known; and what creation
// measures on a real one, how it is kept, and when an open uses it.

#include "store/tuning.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "index/index.h"
#include "store/device_set.h"
#include "store/live_page.h"
#include "tests/store/store_fixture.h"

namespace tensorshelf {
namespace {

// A device that is the faster the closer a setting is to `best`, and `gain` times the defaults' rate there.
auto DeviceThatLikes(const IoSetting& best, double gain, int* tries) {
  return [=](const IoSetting& setting) -> absl::StatusOr<TransferRates> {
    ++*tries;
    const auto away = [](uint32_t a, uint32_t b) { return std::abs(std::log2(a) - std::log2(b)); };
    const auto distance = [&](const IoSetting& from) {
      return away(from.io_size, best.io_size) + away(from.queue_depth, best.queue_depth) +
             away(from.worker_count, best.worker_count);
    };
    const double whole = distance(DefaultIoSetting());
    const double rate = 1e9 * (whole == 0 ? 1 : 1 + (gain - 1) * (1 - distance(setting) / whole));
    return TransferRates{.read = 2 * rate, .write = rate};
  };
}

TEST(SearchSettingTest, FindsWhatIsClearlyBetter) {
  const IoSetting likes{.io_size = 4 << 20, .queue_depth = 8, .worker_count = 4};
  int tries = 0;
  auto found = SearchSetting(DeviceThatLikes(likes, 1.5, &tries));
  ASSERT_OK(found);
  EXPECT_EQ(found->setting, likes);
  EXPECT_DOUBLE_EQ(found->rates.read, 3e9);
  EXPECT_DOUBLE_EQ(found->rates.write, 1.5e9);
  EXPECT_LE(tries, 20);
}

TEST(SearchSettingTest, KeepsTheDefaultsWhereLittleIsToBeHad) {
  int tries = 0;
  auto found = SearchSetting(DeviceThatLikes({4 << 20, 8, 4}, 1.08, &tries));
  ASSERT_OK(found);
  EXPECT_EQ(found->setting, DefaultIoSetting());
  EXPECT_DOUBLE_EQ(found->rates.write, 1e9);
}

// One lucky try must not decide: the one that won the sweep is tried again.
TEST(SearchSettingTest, IsNotFooledByOneLuckyTry) {
  int tries = 0;
  auto found = SearchSetting([&](const IoSetting& setting) -> absl::StatusOr<TransferRates> {
    const bool lucky = ++tries == 3;
    EXPECT_GT(setting.io_size, 0u);
    return TransferRates{.read = lucky ? 9e9 : 1e9, .write = lucky ? 9e9 : 1e9};
  });
  ASSERT_OK(found);
  EXPECT_EQ(found->setting, DefaultIoSetting());
}

TEST(SearchSettingTest, AnErrorOfTheDeviceIsTold) {
  const auto broken = [](const IoSetting&) -> absl::StatusOr<TransferRates> { return absl::InternalError("EIO"); };
  EXPECT_TRUE(absl::IsInternal(SearchSetting(broken).status()));
}

class TunedStoreTest : public StoreFixture {
 protected:
  void CreateTuned(bool tune) {
    CreateOptions options;
    options.capacity = 2 * kCapacityMin;
    options.devices = devices_;
    options.prefill = Prefill::kNone;
    options.tune = tune;
    ASSERT_OK(Store::Create(path_, options));
  }
  // Puts rows into the index of the closed store.
  void Remember(const std::vector<TuningRow>& rows) {
    auto index = Index::Open(path_ + "/index", Index::Mode::kReadWrite, {});
    ASSERT_OK(index);
    auto commit = (*index)->ReadCommit();
    ASSERT_OK(commit);
    const auto batch = (*index)->NewBatch();
    for (const TuningRow& row : rows) batch->PutTuning(row);
    ASSERT_OK((*index)->Commit(*batch, commit->commit + 1));
    ASSERT_OK((*index)->Flush());
  }
};

TEST_F(TunedStoreTest, CreationMeasuresEachDevice) {
  devices_ = {root_ + "/one", root_ + "/two"};
  CreateTuned(true);
  Open();
  const StoreInfo info = store_->info();
  ASSERT_EQ(info.files.size(), 2u);
  for (const FileInfo& file : info.files) {
    ASSERT_TRUE(file.tuning.has_value());
    EXPECT_EQ(file.tuning->device_uuid, file.device_uuid);
    EXPECT_GE(file.tuning->io_size, uint32_t{256} << 10);
    EXPECT_GE(file.tuning->queue_depth, 8u);
    EXPECT_GE(file.tuning->worker_count, 1u);
    EXPECT_GT(file.tuning->read_bytes_per_s, 0u);
    EXPECT_GT(file.tuning->write_bytes_per_s, 0u);
  }
  const std::string bytes = RandomBytes(5'000'000, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  Reopen();
  EXPECT_EQ(Get("a"), bytes);
}

TEST_F(TunedStoreTest, WithoutMeasuringTheDefaultsCount) {
  CreateTuned(false);
  Open();
  EXPECT_FALSE(store_->info().files[0].tuning.has_value());
}

// The size of the staging buffers is that of the longest transfer, which tells what an open uses.
TEST_F(TunedStoreTest, AnOpenUsesWhatIsRememberedUnlessItIsTold) {
  CreateTuned(false);
  Open();
  const Uuid device = store_->info().files[0].device_uuid;
  ASSERT_OK(store_->Close());
  store_.reset();
  Remember({{.device_uuid = device, .io_size = 2 << 20, .queue_depth = 16, .worker_count = 3}});
  const auto buffer_size = [&] { return store_->live_page().gauges.arena_buffer_size; };
  Open();
  EXPECT_EQ(store_->info().files[0].tuning->worker_count, 3u);
  EXPECT_EQ(buffer_size(), uint64_t{2} << 20);
  const std::string bytes = RandomBytes(5'000'001, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  EXPECT_EQ(Get("a"), bytes);
  options_.io.queue_depth = 8;
  Reopen();
  EXPECT_EQ(buffer_size(), uint64_t{1} << 20) << "settings of the caller come first";
  options_.io.queue_depth = IoEngineOptions{}.queue_depth;
  options_.use_tuning = false;
  Reopen();
  EXPECT_EQ(buffer_size(), uint64_t{1} << 20);
  EXPECT_EQ(Get("a"), bytes);
}

}  // namespace
}  // namespace tensorshelf
