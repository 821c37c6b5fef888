// Writes that a device acknowledged and did not do, or did elsewhere: lost, stale, misdirected and swapped blocks.
// Every one is found by a read, which hands out nothing, and by verify, which names the object.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/linux_disk.h"
#include "store/verify.h"
#include "tests/store/shelf_copy.h"
#include "tests/testing/faulty_disk.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::Call;
using testing::Effect;
using testing::FaultyDisk;
using testing::IsOk;

constexpr uint64_t kNames = 12;

std::string NameOf(uint64_t i) { return absl::StrCat("w/", i); }
// Every third below one block. Several of each size, so that each block has another of its length.
uint64_t SizeOf(uint64_t i) { return i % 3 == 0 ? 30000 : 150000; }
uint64_t OldSeed(uint64_t i) { return 1000 + i; }

class MisplacedWriteTest : public ShelfCopyFixture {
 protected:
  struct Block {
    uint64_t object;
    uint64_t begin, length;  // in the object
    BlockPosition position;
  };

  void SetUp() override {
    std::vector<ModelOp> ops;
    for (const bool newest : {false, true}) {
      for (uint64_t i = 0; i < kNames; ++i) {
        ops.push_back({.kind = ModelOp::Kind::kPut,
                       .name = NameOf(i),
                       .value = {.size = SizeOf(i), .seed = newest ? i : OldSeed(i)}});
      }
    }
    MakeOriginal(ops);
    Restore();
  }

  void OpenForReading() {
    StoreOptions options = SmallOptions();
    options.mode = StoreOptions::Mode::kReadOnly;
    ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf_, options));
  }
  Block RandomBlock() {
    Block block{.object = random_() % kNames};
    const auto object = store_->Find(NameOf(block.object));
    EXPECT_OK(object);
    const uint64_t bytes = object->record().block_bytes();
    block.begin = random_() % ((object->size_bytes() + bytes - 1) / bytes) * bytes;
    block.length = std::min(bytes, object->size_bytes() - block.begin);
    block.position = store_->PositionOf(*object, block.begin);
    return block;
  }
  std::string BytesOfBlock(const Block& block, uint64_t seed) const {
    return RandomBytes(SizeOf(block.object), seed).substr(block.begin, block.length);
  }
  static void Overwrite(const BlockPosition& position, const std::string& bytes) {
    std::fstream file(position.file, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(position.offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(file.good());
  }

  // The damaged block is found both ways.
  void ExpectFound(const Block& block, const std::string& what) {
    const std::string name = NameOf(block.object);
    const std::string where =
        absl::StrCat(what, " block of ", name, " at ", block.begin, ", trial ", tried_, ", seed ", seed_);
    ASSERT_OK_AND_ASSIGN(const Object object, store_->Find(name));
    std::string bytes(block.length, '?');
    const ReadRequest request{.object = &object, .offset = block.begin, .to = Span(bytes)};
    const absl::Status read = store_->Read({&request, 1}, {});
    ASSERT_EQ(KindOf(read), ErrorKind::kCorruption) << where << ": " << read;
    ASSERT_EQ(CorruptionOf(read)->name, name) << where;
    ASSERT_EQ(bytes, std::string(block.length, '\0')) << where << ": its bytes were handed out";
    uint64_t named = 0;
    const auto report = VerifyStore(
        *store_, name, {.on_damage = [&](const VerifyDamage& damage) { named += damage.name == name ? 1 : 0; }});
    ASSERT_OK(report);
    ASSERT_GE(named, 1u) << where << ": verify found nothing";
  }

  const uint64_t seed_ = testing::Seed(7);
  std::mt19937_64 random_{seed_};
  uint64_t tried_ = 0;
  std::unique_ptr<Store> store_;
};

TEST_F(MisplacedWriteTest, EachIsFoundByReadAndByVerify) {
  ASSERT_NO_FATAL_FAILURE(OpenForReading());
  const uint64_t each = testing::Scaled(50);
  for (; tried_ < 4 * each; ++tried_) {
    const Block block = RandomBlock();
    const std::string whole = BytesOfBlock(block, block.object);
    Block other;
    std::string what, instead;
    switch (tried_ % 4) {
      case 0:
        what = "a lost";
        instead = std::string(block.length, '\0');
        break;
      case 1:
        what = "a stale";
        instead = BytesOfBlock(block, OldSeed(block.object));
        break;
      default:
        what = tried_ % 4 == 2 ? "a misdirected" : "a swapped";
        do {
          other = RandomBlock();
        } while (other.length != block.length || other.position.offset == block.position.offset);
        instead = BytesOfBlock(other, other.object);
    }
    ASSERT_NO_FATAL_FAILURE(Overwrite(block.position, instead));
    if (tried_ % 4 == 3) {
      ASSERT_NO_FATAL_FAILURE(Overwrite(other.position, whole));
      ASSERT_NO_FATAL_FAILURE(ExpectFound(other, what));
      ASSERT_NO_FATAL_FAILURE(Overwrite(other.position, instead));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectFound(block, what));
    ASSERT_NO_FATAL_FAILURE(Overwrite(block.position, whole));
  }
  EXPECT_EQ(Difference(*store_, model_), "");
  testing::ReportTried(tried_, seed_);
}

// The same below a store that is writing: what was acknowledged reads equal or fails as damaged.
TEST_F(MisplacedWriteTest, AStoreOnALyingDeviceNeverReadsOtherBytes) {
  const std::unique_ptr<Disk> base = NewLinuxDisk();
  uint64_t found = 0, hit = 0;
  const uint64_t trials = testing::Scaled(30);
  for (; tried_ < trials; ++tried_) {
    Restore();
    FaultyDisk disk(base.get());
    StoreOptions options = SmallOptions();
    options.disk = &disk;
    ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf_, options));
    ASSERT_OK(disk.RememberForStaleReads(shelf_ + "/00000001.tsd"));
    Model model = model_;
    const bool writes = tried_ % 3 != 2;
    const Effect effect = tried_ % 3 == 0 ? Effect::kLose : tried_ % 3 == 1 ? Effect::kMisdirect : Effect::kStale;
    if (writes) {
      // A small put is written by its own thread, without a queue.
      for (const Call call : {Call::kCompletion, Call::kPWrite}) {
        disk.Arm({.call = call,
                  .nth = 1 + random_() % 6,
                  .times = 1,
                  .path_part = ".tsd",
                  .effect = effect,
                  .amount = 4096 * (1 + random_() % 64)});
      }
    }
    for (uint64_t i = 0; i < kNames; ++i) {
      const ModelOp op{.kind = ModelOp::Kind::kPut, .name = NameOf(i), .value = {.size = SizeOf(i), .seed = 50 + i}};
      ASSERT_OK(Apply(*store_, op));
      ASSERT_EQ(Apply(model, op), absl::StatusCode::kOk);
    }
    if (!writes) {
      for (const Call call : {Call::kCompletion, Call::kPRead}) {
        disk.Arm({.call = call, .nth = 1 + random_() % 6, .times = 100, .path_part = ".tsd", .effect = effect});
      }
    }
    for (const auto& [name, value] : model) {
      ASSERT_OK_AND_ASSIGN(const Object object, store_->Find(name));
      std::string bytes(value.size, '?');
      const ReadRequest request{.object = &object, .offset = 0, .to = Span(bytes)};
      const absl::Status read = store_->Read({&request, 1}, {});
      if (read.ok()) {
        ASSERT_EQ(bytes, value.bytes()) << name << ": WRONG BYTES, trial " << tried_ << ", seed " << seed_;
      } else {
        ASSERT_EQ(KindOf(read), ErrorKind::kCorruption) << read;
        ++found;
      }
    }
    hit += disk.fired_count() > 0 ? 1 : 0;
    store_.reset();
  }
  EXPECT_EQ(hit, trials);
  EXPECT_GT(found, trials / 3);
  testing::ReportTried(tried_, seed_);
}

// A block that the device cannot read: its object fails with a type, the others are read, and its space is not used
// again once the object is gone.
TEST_F(MisplacedWriteTest, ABadSectorCostsOneObject) {
  const std::unique_ptr<Disk> base = NewLinuxDisk();
  FaultyDisk disk(base.get());
  StoreOptions options = SmallOptions();
  options.disk = &disk;
  ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf_, options));
  const Block block = RandomBlock();
  for (const Call call : {Call::kCompletion, Call::kPRead}) {
    disk.Arm({.call = call,
              .times = 0,
              .path_part = ".tsd",
              .offset_begin = block.position.offset,
              .offset_end = block.position.offset + 512});
  }
  const std::string victim = NameOf(block.object);
  for (const auto& [name, value] : model_) {
    ASSERT_OK_AND_ASSIGN(const Object object, store_->Find(name));
    std::string bytes(value.size, '?');
    const ReadRequest request{.object = &object, .offset = 0, .to = Span(bytes)};
    const absl::Status read = store_->Read({&request, 1}, {});
    if (name == victim) {
      EXPECT_FAILS(read, absl::StatusCode::kInternal, victim);
    } else {
      EXPECT_OK(read);
      EXPECT_EQ(bytes, value.bytes());
    }
  }
  ASSERT_OK(Apply(*store_, {.kind = ModelOp::Kind::kDelete, .name = victim}));
  const std::string one = RandomBytes(4096, 1);
  ASSERT_OK(store_->Put(BytesItem("next", one)));
  EXPECT_GT(store_->stats().space.bad, 0u);
  store_.reset();  // before its disk
}

// A hundred times slower than usual, and fewer taken than were offered: nothing fails.
TEST_F(MisplacedWriteTest, ASlowDeviceThatTakesLittleIsOnlySlow) {
  const std::unique_ptr<Disk> base = NewLinuxDisk();
  FaultyDisk disk(base.get());
  disk.OnCall([](Call call, const std::string&) {
    if (call == Call::kCompletion || call == Call::kSync) absl::SleepFor(absl::Milliseconds(5));
  });
  disk.Arm({.call = Call::kSubmit, .times = 0, .effect = Effect::kShorten, .amount = 1});
  StoreOptions options = SmallOptions();
  options.disk = &disk;
  ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf_, options));
  const ModelOp op{.kind = ModelOp::Kind::kPut, .name = "slow", .value = {.size = 900000, .seed = 3}};
  ASSERT_OK(Apply(*store_, op));
  ASSERT_EQ(Apply(model_, op), absl::StatusCode::kOk);
  EXPECT_EQ(Difference(*store_, model_), "");
  EXPECT_GT(disk.fired_count(), 3u);
  store_.reset();  // before its disk
}

}  // namespace
}  // namespace tensorshelf
