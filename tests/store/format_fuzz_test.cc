// Goal: no bytes in place of a label, a witness slot, a trailer, a freemap, STORE or a name make a decoder crash, loop
// or take more memory than the bytes are worth. Method: valid bytes are mutated by a seed, most with the hash made
// right again so that what lies behind it is reached; what is accepted is encoded and decoded once more.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "store/freemap.h"
#include "store/label.h"
#include "store/name.h"
#include "store/store_file.h"
#include "store/trailer.h"
#include "store/uuid.h"
#include "store/witness_slot.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr Uuid kStore = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6};
constexpr long kGrowthKiBMax = 512 << 10;  // of the resident set

long PeakKiB() {
  rusage usage{};
  EXPECT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  return usage.ru_maxrss;
}

class FormatFuzz : public ::testing::Test {
 protected:
  ~FormatFuzz() override {
    testing::ReportTried(rounds_, seed_);
    if (testing::kScaleDown == 1) {
      EXPECT_LE(PeakKiB() - peak_before_, kGrowthKiBMax);
    }
  }

  // In place, the length stays; every hash at `hashes` (of all bytes before it) is made right, but for one round in
  // eight.
  void Damage(std::string& bytes, const std::vector<size_t>& hashes) {
    for (uint64_t n = 1 + random_() % 4; n > 0; --n) {
      const size_t at = random_() % (random_() % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 160));
      switch (random_() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random_());
          break;
        case 1:
          bytes[at] ^= static_cast<char>(1 << random_() % 8);
          break;
        case 2:
          for (size_t i = at; i < std::min(at + 8, bytes.size()); ++i) bytes[i] = '\xff';
          break;
        default:
          for (size_t i = at; i < std::min(at + 8, bytes.size()); ++i) bytes[i] = '\0';
      }
    }
    if (random_() % 8 == 0) return;
    for (const size_t hash : hashes) {
      StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + hash, Hash64(BytesOf(bytes).first(hash)));
    }
  }
  std::string Where(uint64_t round) const { return absl::StrCat("seed ", seed_, ", round ", round); }

  const uint64_t seed_ = testing::Seed(20261001);
  const uint64_t rounds_ = testing::Scaled(20000);
  const long peak_before_ = PeakKiB();
  std::mt19937_64 random_{seed_};
};

TEST_F(FormatFuzz, Labels) {
  Label label;
  label.file_id = 3;
  label.label_seq = 9;
  label.store_uuid = kStore;
  label.size = uint64_t{64} << 20;
  label.data_begin = kDataBegin;
  label.data_end = label.size - kDataTailBytes;
  label.state = LabelState::kActive;
  label.tier_name = "nvme";
  std::string valid(kLabelBytes, '\0');
  const auto span = [](std::string& bytes) {
    return std::span<std::byte, kLabelBytes>(reinterpret_cast<std::byte*>(bytes.data()), kLabelBytes);
  };
  EncodeLabel(label, span(valid));
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string bytes = valid;
    Damage(bytes, {kLabelBytes - 8});
    const auto decoded = DecodeLabel(BytesOf(bytes));
    if (!decoded.ok()) continue;
    ++accepted;
    ASSERT_OK(CheckLabel(*decoded)) << Where(round);
    ASSERT_LE(decoded->data_end, decoded->size) << Where(round);
    std::string again(kLabelBytes, '\0');
    EncodeLabel(*decoded, span(again));
    ASSERT_OK(DecodeLabel(BytesOf(again))) << Where(round);
  }
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, rounds_);
}

TEST_F(FormatFuzz, Slots) {
  std::string valid(kSlotBytes, '\0');
  const auto span = [](std::string& bytes) {
    return std::span<std::byte, kSlotBytes>(reinterpret_cast<std::byte*>(bytes.data()), kSlotBytes);
  };
  EncodeSlot({.file_id = 1, .store_uuid = kStore, .slot_seq = 5, .epoch = 2, .durable_commit = 7}, span(valid));
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string bytes = valid;
    Damage(bytes, {kSlotBytes - 8});
    const auto decoded = DecodeSlot(BytesOf(bytes));
    if (!decoded.ok()) continue;
    ++accepted;
    std::string again(kSlotBytes, '\0');
    EncodeSlot(*decoded, span(again));
    ASSERT_OK_AND_ASSIGN(const WitnessSlot twice, DecodeSlot(BytesOf(again)));
    ASSERT_EQ(twice, *decoded) << Where(round);
  }
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, rounds_);
}

TEST_F(FormatFuzz, Trailers) {
  const std::string record(200, 'r'), name = "layers.0.weight";
  const std::vector<uint64_t> sums(40, 77);
  std::vector<std::byte> encoded(TrailerUnits(record.size(), name.size(), sums.size()) * kUnitBytes);
  EncodeTrailer({kStore, 12, 5, 777, BytesOf(record), BytesOf(name), sums}, encoded);
  const std::string valid(reinterpret_cast<const char*>(encoded.data()), encoded.size());
  uint64_t refused = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string bytes = valid;
    Damage(bytes, {72, valid.size() - 8});
    DecodeTrailerHeader(BytesOf(bytes)).status().IgnoreError();
    const auto decoded = DecodeTrailer(BytesOf(bytes), kStore, 5, 777);
    if (!decoded.ok()) {
      ++refused;
      continue;
    }
    // What it points to lies inside the bytes.
    ASSERT_LE(decoded->record.size() + decoded->name.size() + decoded->sums.size() * 8, bytes.size()) << Where(round);
  }
  EXPECT_GT(refused, rounds_ / 10);
}

TEST_F(FormatFuzz, Freemaps) {
  Freemap freemap;
  freemap.store_uuid = kStore;
  freemap.epoch = 3;
  freemap.commit = 9;
  Freemap::FileMap map{.file = {1, 256, 4096}, .counters = {}, .free = {{300, 10}, {500, 100}}};
  map.counters[SpaceState::kFree] = 110;
  map.counters[SpaceState::kLive] = 4096 - 256 - 110;
  freemap.files.push_back(map);
  freemap.shared.push_back({4, 2});
  freemap.orphans = {8, 9};
  const std::string valid = EncodeFreemap(freemap);
  ASSERT_OK(DecodeFreemap(valid));
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string bytes = valid;
    Damage(bytes, {valid.size() - 8});
    const auto decoded = DecodeFreemap(bytes);
    if (!decoded.ok()) continue;
    ++accepted;
    ASSERT_EQ(*DecodeFreemap(EncodeFreemap(*decoded)), *decoded) << Where(round);
  }
  EXPECT_LT(accepted, rounds_);
}

TEST_F(FormatFuzz, StoreFiles) {
  StoreFile store_file;
  store_file.store_uuid = kStore;
  store_file.devices.push_back({kStore, "devices/0"});
  const std::string valid = FormatStoreFile(store_file);
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string text = valid;
    if (random_() % 2 == 0) text.insert(random_() % text.size(), text.substr(random_() % text.size(), random_() % 60));
    if (random_() % 4 == 0) text.erase(random_() % text.size(), random_() % 20);
    Damage(text, {});
    const auto parsed = ParseStoreFile(text);
    if (!parsed.ok()) continue;
    ++accepted;
    for (const StoreFile::Device& device : parsed->devices) ResolveHint("/shelf", device.path_hint);
    ASSERT_EQ(*ParseStoreFile(FormatStoreFile(*parsed)), *parsed) << Where(round) << "\n" << text;
  }
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, rounds_);
}

TEST_F(FormatFuzz, Names) {
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string name(random_() % 40, '\0');
    for (char& byte : name) {
      byte = static_cast<char>(random_() % 3 == 0 ? random_() : 'a' + random_() % 26);
    }
    const bool valid = ValidateName(name).ok();
    const std::string shown = EscapeForTerminal(name);
    for (const char byte : shown) {
      ASSERT_TRUE(static_cast<unsigned char>(byte) >= 0x20 && byte != 0x7f) << Where(round);
    }
    if (valid) {
      ASSERT_FALSE(name.empty()) << Where(round);
    }
  }
}

}  // namespace
}  // namespace tensorshelf
