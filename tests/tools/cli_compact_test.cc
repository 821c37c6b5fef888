// tensorshelf compact on a shelf full of holes: what it says beforehand is what it does, every byte is as it was, and a
// damaged object, a locked shelf and a wrong rate end as the manual says.

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

using testing::IsOk;

class CliCompact : public CliFixture {
 protected:
  void SetUp() override {
    CliFixture::SetUp();
    const auto store = OpenStore();
    for (uint32_t i = 0; i < kObjects; ++i) PutBytes(*store, NameOf(i), BytesOf(i));
    auto transaction = store->Begin();
    ASSERT_OK(transaction);
    for (uint32_t i = 0; i < kObjects; i += 2) transaction->Delete(NameOf(i));
    ASSERT_OK(transaction->Commit());
  }

  static constexpr uint32_t kObjects = 60;
  static std::string NameOf(uint32_t i) { return absl::StrCat("n", i); }
  static std::string BytesOf(uint32_t i) { return RandomBytes(20000 + 30000 * (i % 5), i); }
  void ExpectWhole() {
    for (uint32_t i = 1; i < kObjects; i += 2) {
      EXPECT_TRUE(Call({"cat", shelf(), NameOf(i)}).out == BytesOf(i)) << NameOf(i);
    }
    const Outcome checked = Call({"fsck", shelf(), "--deep", "--json"});
    EXPECT_EQ(checked.status, 0) << checked.out;
    EXPECT_EQ(checked.json()["findings"].size(), 0u) << checked.out;
  }
};

TEST_F(CliCompact, DoesWhatItSaidBefore) {
  const auto untouched = Fingerprint(shelf_);
  const Outcome said = Call({"compact", shelf(), "--dry-run", "--json"});
  ASSERT_EQ(said.status, 0) << said.out << said.err;
  EXPECT_EQ(Fingerprint(shelf_), untouched);
  const Outcome done = Call({"compact", shelf(), "--json"});
  ASSERT_EQ(done.status, 0) << done.out << done.err;
  const nlohmann::json plan = said.json(), report = done.json();
  EXPECT_EQ(plan["dry_run"], true);
  EXPECT_EQ(report["dry_run"], false);
  EXPECT_GT(report["objects_moved"], 5);
  for (const char* field : {"objects_moved", "bytes_moved", "before", "after"}) EXPECT_EQ(plan[field], report[field]);
  EXPECT_LT(report["after"]["fragmentation"], report["before"]["fragmentation"]);
  EXPECT_LT(report["after"]["free_runs"], report["before"]["free_runs"]);
  EXPECT_EQ(report["damage"].size(), 0u);
  ExpectWhole();
}

TEST_F(CliCompact, SaysItInWordsToo) {
  const Outcome said = Call({"compact", shelf(), "--dry-run"});
  EXPECT_EQ(said.status, 0);
  EXPECT_NE(said.out.find("would move "), std::string::npos) << said.out;
  const Outcome done = Call({"compact", shelf(), "--rate", "1GB"});
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_NE(done.out.find("\nmoved "), std::string::npos) << done.out;
  EXPECT_EQ(done.out.substr(0, 21), "before: fragmentation");
  ExpectWhole();
}

// Small objects move up: the lowest of them is the first to be moved.
TEST_F(CliCompact, DamageEndsWithItsStatus) {
  std::string name;
  nlohmann::json lowest;
  for (uint32_t i = 1; i < kObjects; i += 2) {
    const nlohmann::json extent = Call({"stat", shelf(), NameOf(i), "--json"}).json()["object"]["extents"][0];
    if (lowest.is_null() || extent["offset"] < lowest["offset"]) {
      lowest = extent;
      name = NameOf(i);
    }
  }
  Flip(lowest["file"].get<std::string>(), lowest["offset"].get<uint64_t>() + 10);
  const Outcome done = Call({"compact", shelf(), "--json"});
  EXPECT_EQ(done.status, 4);
  const nlohmann::json report = done.json();
  ASSERT_EQ(report["damaged"], 1) << done.out;
  EXPECT_NE(report["damage"][0].get<std::string>().find(name), std::string::npos) << done.out;
  EXPECT_GT(report["objects_moved"], 0);
  EXPECT_EQ(Call({"stat", shelf(), name, "--json"}).json()["object"]["extents"][0], lowest);
}

TEST_F(CliCompact, RefusesWhatItCannotDo) {
  EXPECT_EQ(Call({"compact", shelf(), "--rate", "0"}).status, 16);
  EXPECT_EQ(Call({"compact", shelf(), "--rate", "fast"}).status, 16);
  const auto writer = OpenStore();
  EXPECT_EQ(Call({"compact", shelf(), "--json"}).json()["error"]["kind"], "locked");
  EXPECT_EQ(Call({"compact", shelf(), "--dry-run"}).status, 0) << "beside a writer";
}

}  // namespace
}  // namespace tensorshelf::cli
