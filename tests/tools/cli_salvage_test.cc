// Goal: an index that is gone comes back as far as anything on disk can tell, and what cannot be known is said.
// Method: shelves are filled, their index is removed or replaced by a backup, salvaged, and compared with what was put.

#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class CliSalvage : public CliFixture {
 protected:
  void RemoveIndex() { fs::remove_all(shelf_ / "index"); }
  std::string Cat(const std::string& name) { return Call({"cat", shelf(), name}).out; }
  std::string backup() const { return path("backup"); }
};

TEST_F(CliSalvage, FromTrailersAlone) {
  const std::string a1 = RandomBytes(200'000, 1), a2 = RandomBytes(200'001, 2), b = RandomBytes(6 << 20, 3);
  {
    const auto store = OpenStore();
    PutBytes(*store, "a", a1);
    PutBytes(*store, "a", a2);
    PutBytes(*store, "b", b);
    PutBytes(*store, "tiny", "abc");
    ASSERT_OK(store->Close());
  }
  RemoveIndex();
  const auto before = Fingerprint(shelf_);
  const Outcome dry = Call({"index", "salvage", shelf(), "--dry-run", "--json"});
  EXPECT_EQ(dry.status, 0) << dry.out << dry.err;
  EXPECT_EQ(Fingerprint(shelf_), before);
  const Outcome salvaged = Call({"index", "salvage", shelf(), "--json"});
  ASSERT_EQ(salvaged.status, 0) << salvaged.out << salvaged.err;
  const nlohmann::json json = salvaged.json();
  EXPECT_EQ(json["verb"], "index salvage");
  EXPECT_EQ(json["named"], 2);
  EXPECT_EQ(json["renamed"], 1);
  EXPECT_EQ(dry.json()["objects"], json["objects"]);
  EXPECT_TRUE(json["old_index"].is_null());
  EXPECT_TRUE(Cat("a") == a2);
  EXPECT_TRUE(Cat("b") == b);
  std::string older;
  for (const auto& object : json["objects"]) {
    if (object["fate"] == "renamed") older = object["name"].get<std::string>();
  }
  EXPECT_EQ(older.rfind("a@", 0), 0u) << older;
  EXPECT_TRUE(Cat(older) == a1);
  EXPECT_EQ(Call({"stat", shelf(), "tiny"}).status, 8);  // it was in the index alone
  EXPECT_EQ(Call({"fsck", shelf(), "--deep", "--json"}).json()["findings"].size(), 0u);
  const auto store = OpenStore();
  PutBytes(*store, "new", RandomBytes(1 << 20, 4));
  ASSERT_OK(store->Close());
  EXPECT_EQ(Call({"fsck", shelf(), "--deep"}).status, 0);
}

TEST_F(CliSalvage, DamagedObjectsStayOut) {
  {
    const auto store = OpenStore();
    PutBytes(*store, "a", RandomBytes(200'000, 1));
    PutBytes(*store, "b", RandomBytes(200'000, 2));
    ASSERT_OK(store->Close());
  }
  const nlohmann::json extent = Call({"stat", shelf(), "a", "--json"}).json()["object"]["extents"][0];
  Flip(shelf_ / "00000001.tsd", extent["offset"].get<uint64_t>() + 100'000);
  RemoveIndex();
  const Outcome salvaged = Call({"index", "salvage", shelf(), "--json"});
  EXPECT_EQ(salvaged.status, 4);
  EXPECT_EQ(salvaged.json()["damaged"], 1);
  EXPECT_EQ(Call({"ls", shelf()}).out, "b\n");
}

TEST_F(CliSalvage, FromABackupAndNewerTrailers) {
  const std::string old = RandomBytes(300'000, 1), changed = RandomBytes(300'000, 2), later = RandomBytes(300'000, 3);
  {
    const auto store = OpenStore();
    PutBytes(*store, "gone", RandomBytes(300'000, 9));
    PutBytes(*store, "kept", old);
    PutBytes(*store, "changed", old);
    PutBytes(*store, "tiny", "abc");
    ASSERT_OK_AND_ASSIGN(Transaction transaction, store->Begin());
    transaction.Delete("gone");
    ASSERT_OK(transaction.Commit());
    ASSERT_OK(store->Close());
  }
  const Outcome saved = Call({"index", "backup", shelf(), backup()});
  ASSERT_EQ(saved.status, 0) << saved.err;
  {
    const auto store = OpenStore();
    PutBytes(*store, "changed", changed);
    PutBytes(*store, "later", later);
    ASSERT_OK(store->Close());
  }
  RemoveIndex();
  const Outcome salvaged = Call({"index", "salvage", shelf(), "--backup", backup(), "--json"});
  ASSERT_EQ(salvaged.status, 0) << salvaged.out << salvaged.err;
  EXPECT_TRUE(Cat("kept") == old);
  EXPECT_TRUE(Cat("changed") == changed);
  EXPECT_TRUE(Cat("later") == later);
  EXPECT_EQ(Cat("tiny"), "abc");
  EXPECT_EQ(Call({"stat", shelf(), "gone"}).status, 8);  // it had been deleted before the backup
  EXPECT_EQ(Call({"fsck", shelf(), "--deep", "--json"}).json()["findings"].size(), 0u);
}

TEST_F(CliSalvage, WhatWasOverwrittenSinceTheBackupIsLost) {
  {
    const auto store = OpenStore();
    PutBytes(*store, "early", RandomBytes(9 << 20, 1));
    ASSERT_OK(store->Close());
  }
  ASSERT_EQ(Call({"index", "backup", shelf(), backup()}).status, 0);
  {
    const auto store = OpenStore();
    ASSERT_OK_AND_ASSIGN(Transaction transaction, store->Begin());
    transaction.Delete("early");
    ASSERT_OK(transaction.Commit());
    PutBytes(*store, "next", RandomBytes(12 << 20, 2));  // of 16 MiB: in the place of the first
    ASSERT_OK(store->Close());
  }
  RemoveIndex();
  const Outcome salvaged = Call({"index", "salvage", shelf(), "--backup", backup(), "--json"});
  EXPECT_EQ(salvaged.status, 4) << salvaged.out;
  EXPECT_EQ(salvaged.json()["overlapped"], 1);
  EXPECT_EQ(salvaged.json()["lost_names"], 1);
  EXPECT_EQ(Call({"ls", shelf()}).out, "next\n");
  EXPECT_EQ(Call({"fsck", shelf(), "--deep", "--json"}).json()["findings"].size(), 0u);
}

TEST_F(CliSalvage, RestoreTellsWhatIsMissing) {
  {
    const auto store = OpenStore();
    PutBytes(*store, "a", "1");
    ASSERT_OK(store->Close());
  }
  ASSERT_EQ(Call({"index", "backup", shelf(), backup()}).status, 0);
  const Outcome whole = Call({"index", "restore", shelf(), backup(), "--json"});
  EXPECT_EQ(whole.status, 0) << whole.out << whole.err;
  EXPECT_EQ(whole.json()["missing_commits"], 0);
  EXPECT_TRUE(fs::exists(whole.json()["old_index"].get<std::string>()));
  EXPECT_EQ(Call({"ls", shelf()}).out, "a\n");
  {
    const auto store = OpenStore();
    PutBytes(*store, "b", "2");
    PutBytes(*store, "c", "3");
    ASSERT_OK(store->Close());
  }
  const Outcome older = Call({"index", "restore", shelf(), backup(), "--json"});
  EXPECT_EQ(older.status, 4);
  EXPECT_EQ(older.json()["missing_commits"], 2);
  EXPECT_EQ(Call({"ls", shelf(), "--json"}).json()["error"]["kind"], "lost_commits");
  EXPECT_EQ(Call({"fsck", shelf(), "--repair", "--accept-loss"}).status, 1);
  EXPECT_EQ(Call({"ls", shelf()}).out, "a\n");
}

TEST_F(CliSalvage, BackupsOfOtherShelvesAndLockedShelvesAreRefused) {
  ASSERT_EQ(Call({"index", "backup", shelf(), backup()}).status, 0);
  const std::string second = path("second");
  ASSERT_EQ(Call({"create", second, "--capacity", "8MiB", "--prefill", "none"}).status, 0);
  const auto before = Fingerprint(second);
  EXPECT_EQ(Call({"index", "restore", second, backup()}).status, 4);
  EXPECT_EQ(Call({"index", "salvage", second, "--backup", backup()}).status, 4);
  EXPECT_EQ(Call({"index", "restore", second, path("nothing")}).status, 8);
  EXPECT_EQ(Call({"ls", second}).status, 0);
  EXPECT_EQ(Fingerprint(second).size(), before.size());
  const auto writer = OpenStore();
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"index", "backup", shelf(), backup(), "--json"},
                                             {"index", "restore", shelf(), backup(), "--json"},
                                             {"index", "salvage", shelf(), "--json"},
                                             {"relocate", shelf(), "--json"}}) {
    const Outcome locked = Call(arguments);
    EXPECT_EQ(locked.status, 8) << arguments[1];
    EXPECT_EQ(locked.json()["error"]["kind"], "locked") << locked.out;
  }
}

}  // namespace
}  // namespace tensorshelf::cli
