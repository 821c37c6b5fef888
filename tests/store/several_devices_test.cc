// What several devices are worth: their sum for striped tensors, and no waiting of the others for a slow one.
// Rate-limited disks stand in for devices: the bytes move at once, their completion comes when a device of that rate
// would be done.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/linux_disk.h"
#include "store/live_page.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/rate_limited_disk.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::kScaleDown;
using testing::RateLimitedDisk;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class SeveralDevicesTest : public StoreFixture {
 protected:
  void TearDown() override { store_.reset(); }  // before its disk
  void Start(size_t device_count) {
    for (size_t i = 0; i < device_count; ++i) devices_.push_back(root_ + "/device" + std::to_string(i));
    disk_ = std::make_unique<RateLimitedDisk>(linux_.get(), devices_);
    options_.disk = disk_.get();
    options_.page_locked = false;
    options_.background_fill = false;
    options_.idle_witness_ms = 1000000;
    Create(device_count * 96 * kMiB);
    Open();
  }
  void SetRates(uint64_t bytes_per_s) {
    for (const std::string& device : devices_) disk_->SetRate(device, bytes_per_s);
  }
  // The directory of the device on which a small object lies.
  std::string DeviceOf(const std::string& name) {
    auto object = store_->Find(name);
    EXPECT_OK(object);
    const std::string file = store_->PositionOf(*object, 0).file;
    return file.substr(0, file.rfind('/'));
  }
  template <typename Call>
  static double SecondsOf(Call call) {
    const absl::Time begun = absl::Now();
    call();
    return absl::ToDoubleSeconds(absl::Now() - begun);
  }

  std::unique_ptr<Disk> linux_ = NewLinuxDisk({});
  std::unique_ptr<RateLimitedDisk> disk_;
};

struct Times {
  double put = 1e9, get = 1e9;
};

class StripedTimes : public SeveralDevicesTest {
 protected:
  // Of one tensor, the best of three: a busy machine only ever adds to what the devices take.
  Times Measure(size_t device_count, const std::string& bytes) {
    root_ += "/" + std::to_string(device_count);
    path_ = root_ + "/shelf";
    std::filesystem::create_directory(root_);
    devices_.clear();
    Start(device_count);
    SetRates(64 * kMiB);
    Times best;
    std::string read(bytes.size(), '\0');
    PutItem item = BytesItem("w", bytes);
    item.ephemeral = true;  // its bytes travel as any, without the sync of the one disk below both devices
    for (int i = 0; i < 3; ++i) {
      best.put = std::min(best.put, SecondsOf([&] { ASSERT_OK(store_->Put(item)); }));
      best.get = std::min(best.get, SecondsOf([&] {
                            auto object = store_->Find("w");
                            ASSERT_OK(object);
                            const ReadRequest request{.object = &*object, .offset = 0, .to = Span(read)};
                            ASSERT_OK(store_->Read({&request, 1}, {}));
                          }));
    }
    EXPECT_EQ(read, bytes);
    SetRates(0);
    store_.reset();
    return best;
  }
};

TEST_F(StripedTimes, TwoDevicesAreNearlyTwiceOne) {
  if (kScaleDown > 1) GTEST_SKIP() << "times say nothing of a sanitized program";
  const std::string root = root_;
  const std::string bytes = RandomBytes(32 * kMiB, 1);
  const Times one = Measure(1, bytes);
  root_ = root;
  const Times two = Measure(2, bytes);
  root_ = root;
  RecordProperty("put_ratio", std::to_string(one.put / two.put));
  RecordProperty("get_ratio", std::to_string(one.get / two.get));
  EXPECT_GE(one.put / two.put, 1.9) << one.put << " s with one device, " << two.put << " s with two";
  EXPECT_GE(one.get / two.get, 1.9) << one.get << " s with one device, " << two.get << " s with two";
}

// The slow device is stopped while so much is read from it, through staging buffers, that it would take all of them.
TEST_F(SeveralDevicesTest, AStoppedDeviceHoldsUpOnlyItsOwnTensors) {
  Start(2);
  const std::string large = RandomBytes(12 * kMiB + 100, 1);  // below the size that is striped
  std::vector<std::string> slow, fast;
  for (int i = 0; i < 6; ++i) {
    const std::string name = "t" + std::to_string(i);
    ASSERT_OK(store_->Put(BytesItem(name, large)));
    (DeviceOf(name) == devices_[0] ? slow : fast).push_back(name);
  }
  ASSERT_FALSE(slow.empty());
  ASSERT_FALSE(fast.empty());
  disk_->SetStopped(devices_[0], true);
  std::atomic<size_t> slow_done{0};
  const auto read = [&](const std::string& name) {
    std::string memory(large.size() + 1, '\0');
    auto object = store_->Find(name);
    ASSERT_OK(object);
    // One byte off any alignment: that is what staging buffers are for.
    const ReadRequest request{.object = &*object, .offset = 0, .to = Span(memory).subspan(1)};
    ASSERT_OK(store_->Read({&request, 1}, {}));
    EXPECT_EQ(memory.compare(1, large.size(), large), 0);
  };
  std::vector<std::thread> readers;
  for (size_t i = 0; i < 8; ++i) {  // 96 MiB want to pass through 64 buffers of 1 MiB
    readers.emplace_back([&, i] {
      read(slow[i % slow.size()]);
      ++slow_done;
    });
  }
  const auto buffers_in_use = [&] {
    const LiveGauges gauges = store_->live_page().gauges;
    return gauges.arena_buffers - gauges.arena_free_buffers;
  };
  while (buffers_in_use() < 30) std::this_thread::yield();  // its share
  absl::Notification done;
  std::thread other([&] {
    for (const std::string& name : fast) read(name);
    done.Notify();
  });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(60))) << "the other device's tensors wait for it";
  EXPECT_EQ(slow_done.load(), 0u);
  disk_->SetStopped(devices_[0], false);
  other.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(slow_done.load(), 8u);
}

}  // namespace
}  // namespace tensorshelf
