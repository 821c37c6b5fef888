// Bytes that were written once are read for ever. A shelf of format version 1 that was committed long ago is opened by
// today's code, and its labels, slots and trailers are read once more by offsets copied from store/FORMAT.md, without
// our codecs.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "store/store.h"
#include "tests/store/golden_shelf.h"
#include "tests/store/store_fixture.h"

namespace tensorshelf {
namespace {

class GoldenTest : public StoreFixture {
 protected:
  void SetUp() override {
    std::filesystem::copy(TENSORSHELF_GOLDEN_DIR "/v1", path_, std::filesystem::copy_options::recursive);
    std::ifstream in(path_ + "/pages.txt");
    std::string line;
    while (std::getline(in, line)) {
      const size_t colon = line.find(':');
      std::string page(4096, '\0');
      for (size_t i = 0; i < 4096; ++i) {
        page[i] = static_cast<char>(std::stoi(line.substr(colon + 1 + 2 * i, 2), nullptr, 16));
      }
      pages_[std::stoull(line.substr(0, colon))] = page;
    }
    std::ofstream out(path_ + "/00000001.tsd", std::ios::binary);
    for (const auto& [offset, page] : pages_) {
      out.seekp(static_cast<std::streamoff>(offset));
      out.write(page.data(), 4096);
    }
    out.close();
    std::filesystem::resize_file(path_ + "/00000001.tsd", kGoldenFileBytes);
    std::filesystem::remove(path_ + "/pages.txt");
  }

  template <typename T>
  static T At(const std::string& bytes, size_t offset) {
    return LoadLittle<T>(reinterpret_cast<const std::byte*>(bytes.data()) + offset);
  }
  static uint64_t HashOf(const std::string& bytes, size_t length) { return Hash64(BytesOf(bytes).first(length)); }

  std::map<uint64_t, std::string> pages_;
};

TEST_F(GoldenTest, EveryObjectReadsAsItWasPut) {
  Open();
  ASSERT_EQ(store_->stats().names, GoldenObjects().size());
  for (const auto& [name, golden] : GoldenObjects()) {
    ASSERT_OK_AND_ASSIGN(const Object object, store_->Find(name));
    EXPECT_EQ(object.record().kind, golden.tensor ? ObjectKind::kTensor : ObjectKind::kBytes) << name;
    EXPECT_EQ(object.record().dtype, golden.dtype) << name;
    EXPECT_EQ(object.record().shape, golden.shape) << name;
    EXPECT_EQ(*object.metadata(), golden.metadata) << name;
    EXPECT_TRUE(ReadAll(object) == golden.bytes) << name;
  }
  ASSERT_OK_AND_ASSIGN(const Object clone, store_->Find("u8-clone"));
  ASSERT_OK_AND_ASSIGN(const Object original, store_->Find("u8"));
  EXPECT_EQ(clone.record().generation, original.record().generation);
}

TEST_F(GoldenTest, ItCanBeWrittenAndOpenedAgain) {
  Open();
  ASSERT_OK(store_->Put(BytesItem("bytes", "replaced")));
  Reopen();
  EXPECT_EQ(Get("bytes"), "replaced");
  EXPECT_TRUE(Get("u8") == GoldenObjects()["u8"].bytes);
}

TEST_F(GoldenTest, LabelsAreLaidOutAsDocumented) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{4096}, kGoldenFileBytes - (1 << 20)}) {
    const std::string& label = pages_.at(offset);
    EXPECT_EQ(label.substr(0, 8), "TSHLABEL");
    EXPECT_EQ(At<uint32_t>(label, 8), 1u);
    EXPECT_EQ(At<uint32_t>(label, 12), 1u);
    EXPECT_EQ(At<uint64_t>(label, 16), 1u);
    EXPECT_EQ(At<uint64_t>(label, 56), kGoldenFileBytes);
    EXPECT_EQ(At<uint64_t>(label, 64), uint64_t{1} << 20);
    EXPECT_EQ(At<uint64_t>(label, 72), kGoldenFileBytes - (1 << 20));
    EXPECT_EQ(At<uint64_t>(label, 80) | At<uint64_t>(label, 88) | At<uint64_t>(label, 96), 0u);
    EXPECT_EQ(At<uint8_t>(label, 108), 2);
    EXPECT_EQ(At<uint8_t>(label, 109), 12);
    EXPECT_EQ(label.substr(120, 5), std::string("nvme\0", 5));
    EXPECT_EQ(At<uint64_t>(label, 4088), HashOf(label, 4088));
  }
}

TEST_F(GoldenTest, SlotsAreLaidOutAsDocumented) {
  uint64_t newest = 0, durable = 0;
  uint8_t clean = 0;
  for (uint64_t slot_number = 0; slot_number < 16; ++slot_number) {
    const auto page = pages_.find(65536 + slot_number * 4096);
    if (page == pages_.end()) continue;
    const std::string& slot = page->second;
    EXPECT_EQ(slot.substr(0, 8), "TSHWITNS");
    EXPECT_EQ(At<uint32_t>(slot, 8), 1u);
    EXPECT_EQ(At<uint32_t>(slot, 12), 1u);
    EXPECT_EQ(slot.substr(16, 16), pages_.at(0).substr(24, 16));  // store_uuid
    EXPECT_EQ(At<uint64_t>(slot, 32) % 16, slot_number);
    EXPECT_EQ(At<uint64_t>(slot, 4088), HashOf(slot, 4088));
    if (At<uint64_t>(slot, 32) > newest) {
      newest = At<uint64_t>(slot, 32);
      durable = At<uint64_t>(slot, 48);
      clean = At<uint8_t>(slot, 56);
    }
  }
  EXPECT_EQ(clean, 1);
  EXPECT_EQ(durable, 1 + GoldenObjects().size());  // creation, one commit a put, one for the clone
}

TEST_F(GoldenTest, TrailersAreLaidOutAsDocumented) {
  std::map<std::string, uint64_t> stored_bytes;  // by name
  for (const auto& [offset, page] : pages_) {
    if (page.substr(0, 8) != "TSHTRAIL") continue;
    EXPECT_EQ(At<uint32_t>(page, 8), 1u);
    EXPECT_EQ(At<uint32_t>(page, 12), 1u);
    EXPECT_EQ(page.substr(16, 16), pages_.at(0).substr(24, 16));
    EXPECT_EQ(At<uint32_t>(page, 40), 1u);
    EXPECT_EQ(At<uint64_t>(page, 48) * 4096, offset);
    EXPECT_EQ(At<uint64_t>(page, 72), HashOf(page, 72));
    EXPECT_EQ(At<uint64_t>(page, 4088), HashOf(page, 4088));
    const uint32_t name_bytes = At<uint32_t>(page, 44);
    const uint32_t record_bytes = At<uint32_t>(page, 56);
    const std::string record = page.substr(80, record_bytes);
    EXPECT_EQ(At<uint8_t>(record, 0), 1);
    EXPECT_EQ(At<uint8_t>(record, 1), 1);  // tensor
    EXPECT_EQ(At<uint8_t>(record, 2), 1);  // extents
    EXPECT_EQ(At<uint8_t>(record, 7), 16);
    EXPECT_EQ(At<uint16_t>(record, 10), 1);
    EXPECT_EQ(At<uint64_t>(record, 16), At<uint64_t>(page, 32));  // generation
    EXPECT_EQ(At<uint64_t>(record, 72 + 8) * 4096, offset);       // trailer extent: first_unit
    EXPECT_EQ(At<uint32_t>(record, 88), 1u);                      // one extent in column 0
    const uint64_t units = At<uint32_t>(record, 88 + 4 + 4);
    EXPECT_EQ(units, (At<uint64_t>(record, 32) + 4095) / 4096);
    EXPECT_EQ((At<uint64_t>(record, 88 + 4 + 8) + units) * 4096, offset);  // the trailer lies right behind the data
    EXPECT_EQ(At<uint64_t>(record, record_bytes - 8), HashOf(record, record_bytes - 8));
    stored_bytes[page.substr(80 + record_bytes, name_bytes)] = At<uint64_t>(record, 32);
    EXPECT_EQ(At<uint64_t>(page, 64), (At<uint64_t>(record, 32) + 65535) / 65536);
  }
  EXPECT_EQ(stored_bytes, (std::map<std::string, uint64_t>{{"u8", 70000}, {"zeros", 5 << 20}}));
}

}  // namespace
}  // namespace tensorshelf
