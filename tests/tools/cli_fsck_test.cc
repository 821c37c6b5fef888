// Goal: each class of damage has its finding and its exit status, and a repair mends it and nothing else.
// Method: a shelf is made with the store, damaged in its files or through the index's own interface, then checked.

#include "engine/foundation/little_endian.h"
#include "engine/linux_disk.h"
#include "index/index.h"
#include "index/record_codec.h"
#include "store/freemap.h"
#include "store/label.h"
#include "store/layout.h"
#include "store/shelf_files.h"
#include "store/uuid.h"
#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class CliFsck : public CliFixture {
 protected:
  void Fill() {
    const auto store = OpenStore();
    PutBytes(*store, "large", RandomBytes(1 << 20, 1));
    PutBytes(*store, "other", RandomBytes(300'000, 2));
    PutBytes(*store, "tiny", "abc");
    ASSERT_OK(store->Close());
  }
  fs::path data_file() const { return shelf_ / "00000001.tsd"; }
  uint64_t data_end() { return Call({"info", shelf(), "--json"}).json()["files"][0]["data_end"].get<uint64_t>(); }

  // Commits `change` to the index behind the store's back.
  void ChangeIndex(const std::function<void(Index& index, CommitBatch& batch)>& change) {
    ASSERT_OK_AND_ASSIGN(const auto index, Index::Open((shelf_ / "index").string(), Index::Mode::kReadWrite, {}));
    const auto batch = index->NewBatch();
    change(*index, *batch);
    ASSERT_OK_AND_ASSIGN(const CommitRow commit, index->ReadCommit());
    ASSERT_OK(index->Commit(*batch, commit.commit + 1));
    ASSERT_OK(index->Flush());
  }
  uint64_t GenerationOf(const std::string& name) {
    return Call({"stat", shelf(), name, "--json"}).json()["object"]["generation"].get<uint64_t>();
  }

  Outcome Fsck(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"fsck", shelf(), "--json"});
    return Call(more);
  }
  // The findings of that code.
  static std::vector<nlohmann::json> Found(const Outcome& outcome, const std::string& code) {
    std::vector<nlohmann::json> found;
    const nlohmann::json json = outcome.json();
    for (const auto& finding : json["findings"]) {
      if (finding["code"] == code) found.push_back(finding);
    }
    return found;
  }
  // The damage is an error that --repair mends, with `more` where something is given up.
  void ExpectMended(const std::string& code, const std::vector<std::string>& more = {}) {
    const auto before = Fingerprint(shelf_);
    const Outcome found = Fsck();
    EXPECT_EQ(found.status, 4) << found.out << found.err;
    EXPECT_FALSE(Found(found, code).empty()) << found.out;
    EXPECT_EQ(Fingerprint(shelf_), before);
    std::vector<std::string> repair = {"--repair"};
    if (!more.empty()) {
      const Outcome refused = Fsck(repair);
      EXPECT_EQ(refused.status & 4, 4) << refused.out;
      repair.insert(repair.end(), more.begin(), more.end());
    }
    const Outcome mended = Fsck(repair);
    EXPECT_EQ(mended.status, 1) << mended.out << mended.err;
    EXPECT_FALSE(mended.json()["repairs"].empty());
    const Outcome clean = Fsck({"--deep"});
    EXPECT_EQ(clean.status, 0) << clean.out << clean.err;
    const auto store = Store::Open(shelf(), {.page_locked = false});
    ASSERT_OK(store.status());
    PutBytes(**store, "afterwards", RandomBytes(100'000, 9));
    ASSERT_OK((*store)->Close());
    EXPECT_EQ(Fsck({"--deep"}).status, 0);
  }
};

TEST_F(CliFsck, ASoundShelf) {
  Fill();
  const auto before = Fingerprint(shelf_);
  const Outcome outcome = Fsck({"--deep"});
  EXPECT_EQ(outcome.status, 0) << outcome.out;
  const nlohmann::json json = outcome.json();
  EXPECT_EQ(json["findings"].size(), 0u) << outcome.out;
  EXPECT_EQ(json["names"], 3);
  EXPECT_EQ(json["objects"], 2);
  EXPECT_EQ(json["inline_objects"], 1);
  EXPECT_EQ(json["live"].get<uint64_t>() + json["free"].get<uint64_t>(), json["capacity"]);
  EXPECT_EQ(Fingerprint(shelf_), before);
  EXPECT_NE(Call({"fsck", shelf()}).out.find("the shelf is sound"), std::string::npos);
  EXPECT_EQ(Call({"fsck", shelf(), "--accept-loss"}).status, 16);
  EXPECT_EQ(Call({"fsck", path("nothing")}).status, 8);
  EXPECT_EQ(Call({"fsck", folder_.string(), "--repair"}).status, 8);
  EXPECT_FALSE(fs::exists(folder_ / "LOCK"));
}

TEST_F(CliFsck, BesideAWriter) {
  Fill();
  const auto writer = OpenStore();
  PutBytes(*writer, "more", RandomBytes(100'000, 3));
  const Outcome outcome = Fsck();
  EXPECT_EQ(outcome.status, 0) << outcome.out;
  EXPECT_EQ(outcome.json()["mode"], "beside-writer");
  EXPECT_EQ(outcome.json()["names"], 4);
  const Outcome locked = Fsck({"--repair"});
  EXPECT_EQ(locked.status, 8);
  EXPECT_EQ(locked.json()["error"]["kind"], "locked");
}

TEST_F(CliFsck, OneDamagedLabelIsAWarning) {
  Fill();
  Flip(data_file(), kLabelBOffset + 100);
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 0);
  ASSERT_EQ(Found(found, "label").size(), 1u) << found.out;
  EXPECT_EQ(Found(found, "label")[0]["level"], "warning");
  EXPECT_EQ(Fsck({"--repair"}).status, 1);
  EXPECT_EQ(Fsck().json()["warnings"], 0);
}

TEST_F(CliFsck, AllLabelsDamagedComeBackFromTheIndex) {
  Fill();
  const uint64_t c = data_end();
  for (const uint64_t offset : {kLabelAOffset, kLabelBOffset, c}) Flip(data_file(), offset + 60);
  EXPECT_EQ(Call({"ls", shelf(), "-l"}).status, 0);  // degraded: names can still be listed
  ExpectMended("label");
}

TEST_F(CliFsck, ATruncatedFile) {
  Fill();
  fs::resize_file(data_file(), fs::file_size(data_file()) - 4096);
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4);
  ASSERT_EQ(Found(found, "label").size(), 1u) << found.out;
  EXPECT_TRUE(Found(found, "label")[0]["repair"].is_null());
  EXPECT_EQ(Found(found, "label")[0]["file"], data_file().string());
  EXPECT_EQ(Fsck({"--repair"}).status, 4);
}

TEST_F(CliFsck, AMissingFile) {
  Fill();
  fs::rename(data_file(), path("elsewhere"));
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4);
  EXPECT_EQ(Found(found, "device_missing").size(), 1u) << found.out;
  fs::create_directory(path("moved"));
  fs::rename(path("elsewhere"), fs::path(path("moved")) / "00000001.tsd");
  EXPECT_EQ(Fsck({"--device", path("moved")}).status, 0);
  EXPECT_EQ(Call({"relocate", shelf(), "--device", path("moved")}).status, 0);
  EXPECT_EQ(Fsck({"--deep"}).status, 0);
}

TEST_F(CliFsck, StoreMissing) {
  Fill();
  fs::remove(shelf_ / "STORE");
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4) << found.out;
  EXPECT_EQ(Found(found, "store_file").size(), 1u) << found.out;
  ExpectMended("store_file");
}

TEST_F(CliFsck, IndexGone) {
  Fill();
  fs::remove_all(shelf_ / "index");
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4);
  ASSERT_EQ(Found(found, "index").size(), 1u) << found.out;
  EXPECT_NE(Found(found, "index")[0]["message"].get<std::string>().find("salvage"), std::string::npos);
  EXPECT_FALSE(found.json()["index_checked"].get<bool>());
  EXPECT_EQ(Call({"info", shelf()}).status, 4);
}

TEST_F(CliFsck, LogCut) {
  Fill();
  const fs::path crashed = folder_ / "crashed";
  {
    const auto store = OpenStore();
    for (int i = 0; i < 4; ++i) PutBytes(*store, absl::StrCat("n", i), RandomBytes(100'000, i));
    ASSERT_OK(store->Flush());  // witnessed
    fs::copy(shelf_, crashed, fs::copy_options::recursive);
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(crashed / "index")) {
    if (entry.path().extension() == ".log") fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  }
  shelf_ = crashed;
  const Outcome refused = Call({"info", shelf(), "--json"});
  EXPECT_EQ(refused.status, 4);
  EXPECT_EQ(refused.json()["error"]["kind"], "lost_commits");
  ExpectMended("lost_commits", {"--accept-loss"});
}

TEST_F(CliFsck, ADamagedFileOfTheIndex) {
  Fill();
  for (const fs::directory_entry& entry : fs::directory_iterator(shelf_ / "index")) {
    if (entry.path().extension() == ".sst") Flip(entry.path(), 20);
  }
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4);
  EXPECT_FALSE(Found(found, "index").empty()) << found.out;
}

TEST_F(CliFsck, ANameWithoutItsObject) {
  Fill();
  const uint64_t generation = GenerationOf("other");
  ChangeIndex(
      [&](Index&, CommitBatch& batch) { batch.DeleteRow(IndexFamily::kObjects, BytesOf(GenerationKey(generation))); });
  const Outcome listed = Call({"ls", shelf(), "--json"});
  EXPECT_EQ(listed.status, 4);
  EXPECT_EQ(listed.json()["damaged"], 1);
  EXPECT_EQ(listed.json()["count"], 3);
  const Outcome found = Fsck();
  ASSERT_EQ(Found(found, "name").size(), 1u) << found.out;
  EXPECT_EQ(Found(found, "name")[0]["name"], "other");
  EXPECT_EQ(Found(found, "name")[0]["generation"], generation);
  ExpectMended("name", {"--accept-loss"});
  EXPECT_EQ(Call({"ls", shelf()}).out, "afterwards\nlarge\ntiny\n");
}

TEST_F(CliFsck, AnObjectWithoutANameIsNamedAnew) {
  Fill();
  const std::string bytes = Call({"cat", shelf(), "other"}).out;
  const uint64_t generation = GenerationOf("other"), tiny = GenerationOf("tiny");
  ChangeIndex([&](Index&, CommitBatch& batch) {
    batch.DeleteName("other");
    batch.DeleteName("tiny");
  });
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 0);
  EXPECT_EQ(Found(found, "nameless").size(), 2u) << found.out;
  EXPECT_GT(Call({"df", shelf(), "--json"}).json()["nameless"], 0);
  EXPECT_EQ(Fsck({"--repair"}).status, 1);
  EXPECT_EQ(Fsck().json()["warnings"], 0);
  EXPECT_TRUE(Call({"cat", shelf(), absl::StrCat("lost+found/", generation)}).out == bytes);
  EXPECT_EQ(Call({"cat", shelf(), absl::StrCat("lost+found/", tiny)}).out, "abc");
}

TEST_F(CliFsck, TwoObjectsOnOnePlace) {
  Fill();
  const uint64_t generation = GenerationOf("other");
  ChangeIndex([&](Index& index, CommitBatch& batch) {
    ASSERT_OK_AND_ASSIGN(const auto record, index.FindRecord(generation, false));
    ObjectRecord second = *record;
    second.generation = generation + 100;
    ASSERT_OK(batch.PutObject(second, {}));
    batch.PutName("second", {0, second.generation, {}});
  });
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 4);
  ASSERT_FALSE(Found(found, "space").empty()) << found.out;
  EXPECT_EQ(Found(found, "space")[0]["file"], data_file().string());
  EXPECT_EQ(Call({"df", shelf()}).status, 4);
}

TEST_F(CliFsck, ChecksumRowsMissingAndLeftOver) {
  const std::string bytes = RandomBytes(5 << 20, 4);  // 80 sums: in a row of their own
  {
    const auto store = OpenStore();
    PutBytes(*store, "many", bytes);
    ASSERT_OK(store->Close());
  }
  const uint64_t generation = GenerationOf("many");
  EXPECT_EQ(Fsck().json()["findings"].size(), 0u);
  ChangeIndex(
      [&](Index&, CommitBatch& batch) { batch.DeleteRow(IndexFamily::kSums, BytesOf(SumsKey(generation, 0))); });
  const Outcome missing = Fsck();
  EXPECT_EQ(missing.status, 4);
  ASSERT_EQ(Found(missing, "sums").size(), 1u) << missing.out;
  EXPECT_EQ(Found(missing, "sums")[0]["generation"], generation);
  ASSERT_EQ(Call({"rm", shelf(), "many"}).status, 0);
  EXPECT_EQ(Fsck().status, 0);
}

TEST_F(CliFsck, AWrongCount) {
  Fill();
  ChangeIndex([&](Index&, CommitBatch& batch) { batch.PutInlineCount({7, 700}); });
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 0);
  EXPECT_EQ(Found(found, "count").size(), 1u) << found.out;
  EXPECT_EQ(Fsck({"--repair"}).status, 1);
  EXPECT_EQ(Fsck().json()["findings"].size(), 0u);
}

TEST_F(CliFsck, AWrongFreemap) {
  Fill();
  Freemap freemap = DecodeFreemap(ReadAll(shelf_ / "freemap")).value();
  UnitRun& run = freemap.files[0].free[0];
  --run.units;
  --freemap.files[0].counters[SpaceState::kFree];
  ++freemap.files[0].counters[SpaceState::kLive];
  WriteAll(shelf_ / "freemap", EncodeFreemap(freemap));
  ExpectMended("freemap");
}

TEST_F(CliFsck, LeftoversAndOrphans) {
  Fill();
  WriteAll(shelf_ / "CREATING", "");
  const auto disk = NewLinuxDisk();
  for (const uint32_t number : {2u, 3u}) {
    ASSERT_OK_AND_ASSIGN(const auto own, disk->Open(data_file().string(), {}));
    ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*own));
    Label label = reading.label;
    label.file_id = number;
    label.state = number == 2 ? LabelState::kJoining : LabelState::kActive;
    label.device_uuid = RandomUuid().value();
    ASSERT_OK_AND_ASSIGN(const auto file,
                         disk->Open((shelf_ / DataFileName(number)).string(), {.writable = true, .create = true}));
    ASSERT_OK(file->Allocate(label.size));
    ASSERT_OK(WriteLabels(*file, label));
  }
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 0) << found.out;
  EXPECT_EQ(Found(found, "leftover").size(), 1u) << found.out;
  EXPECT_EQ(Found(found, "orphan_file").size(), 2u) << found.out;
  EXPECT_EQ(Fsck({"--repair"}).status, 1);
  EXPECT_FALSE(fs::exists(shelf_ / "CREATING"));
  EXPECT_FALSE(fs::exists(shelf_ / DataFileName(2)));  // adding it did not finish
  EXPECT_TRUE(fs::exists(shelf_ / DataFileName(3)));   // nobody knows whose it is
}

TEST_F(CliFsck, DamagedBytesAreFoundByDeep) {
  Fill();
  const nlohmann::json extent = Call({"stat", shelf(), "large", "--json"}).json()["object"]["extents"][0];
  Flip(data_file(), extent["offset"].get<uint64_t>() + 70'000);
  EXPECT_EQ(Fsck().status, 0);
  const Outcome deep = Fsck({"--deep"});
  EXPECT_EQ(deep.status, 4);
  ASSERT_EQ(deep.json()["damage"].size(), 1u);
  EXPECT_EQ(deep.json()["damage"][0]["name"], "large");
  EXPECT_EQ(deep.json()["damage"][0]["block"], 1);
}

TEST_F(CliFsck, ADamagedSlotIsWorthANote) {
  Fill();
  Flip(data_file(), (64 << 10) + 3 * 4096 + 33);
  const Outcome found = Fsck();
  EXPECT_EQ(found.status, 0);
  EXPECT_EQ(Found(found, "witness").size(), 1u) << found.out;
  EXPECT_EQ(Found(found, "witness")[0]["level"], "note");
}

}  // namespace
}  // namespace tensorshelf::cli
