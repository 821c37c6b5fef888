// Goal: the verbs do on a real shelf what their help says, in text and JSON, and those that only look change nothing.
// Method: Run() with its arguments and string streams, on shelves of 16 MiB in a temporary folder.

#include <atomic>
#include <thread>

#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class CliEndToEnd : public CliFixture {};

TEST_F(CliEndToEnd, ImportThenExportGivesTheSameFile) {
  const std::string file = WriteModel("model.safetensors");
  const Outcome imported = Call({"import", shelf(), file, "--json", "--prefix", "m/"});
  ASSERT_EQ(imported.status, 0) << imported.err;
  EXPECT_EQ(imported.json()["tensors"], 4);
  const Outcome exported = Call({"export", shelf(), "m/", path("out.safetensors")});
  ASSERT_EQ(exported.status, 0) << exported.err;
  EXPECT_TRUE(ReadAll(file) == ReadAll(path("out.safetensors")));
}

TEST_F(CliEndToEnd, ExportReplacesALongerFileWhole) {
  const std::string file = WriteModel("model.safetensors");
  Import(file);
  WriteAll(path("out.safetensors"), std::string(8 << 20, 'x'));
  ASSERT_EQ(Call({"export", shelf(), path("out.safetensors")}).status, 0);
  EXPECT_TRUE(ReadAll(file) == ReadAll(path("out.safetensors")));
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
  }
}

TEST_F(CliEndToEnd, ExportTakesARelativePathAndALink) {
  const std::string file = WriteModel("model.safetensors");
  Import(file);
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  EXPECT_EQ(Call({"export", shelf(), "out.safetensors"}).status, 0);
  fs::create_symlink("target.safetensors", "link.safetensors");
  WriteAll("target.safetensors", "old");
  EXPECT_EQ(Call({"export", shelf(), "link.safetensors"}).status, 0);
  fs::current_path(before);
  EXPECT_TRUE(ReadAll(file) == ReadAll(path("out.safetensors")));
  EXPECT_TRUE(ReadAll(file) == ReadAll(path("target.safetensors")));
  EXPECT_TRUE(fs::is_symlink(path("link.safetensors")));
}

TEST_F(CliEndToEnd, ShardsComeBackTogether) {
  Import(WriteModel("model.safetensors"));
  const Outcome exported = Call({"export", shelf(), path("out.safetensors"), "--shard-size", "1MiB", "--json"});
  ASSERT_EQ(exported.status, 0) << exported.err;
  EXPECT_EQ(exported.json()["files"].size(), 4u);  // three shards and the index
  const Outcome imported =
      Call({"import", shelf(), path("out.safetensors.index.json"), "--prefix", "again/", "--per-file"});
  ASSERT_EQ(imported.status, 0) << imported.err;
  ASSERT_EQ(Call({"export", shelf(), "again/", path("again.safetensors")}).status, 0);
  EXPECT_TRUE(ReadAll(path("model.safetensors")) == ReadAll(path("again.safetensors")));
  const Outcome resumed = Call({"import", shelf(), path("out.safetensors.index.json"), "--prefix", "again/",
                                "--per-file", "--resume", "--replace", "--json"});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_EQ(resumed.json()["skipped_files"], 3);
}

TEST_F(CliEndToEnd, ImportIsAllOrNothing) {
  const std::string good = WriteModel("good.safetensors");
  std::string cut = ReadAll(good);
  cut.pop_back();
  WriteAll(path("cut.safetensors"), cut);
  const Outcome refused = Call({"import", shelf(), good, path("cut.safetensors"), "--json"});
  EXPECT_EQ(refused.status, 8);
  EXPECT_EQ(refused.json()["error"]["rule"], "R21") << refused.out;
  EXPECT_EQ(Call({"ls", shelf()}).out, "");

  Import(good);
  const Outcome taken = Call({"import", shelf(), good});
  EXPECT_EQ(taken.status, 8);
  EXPECT_NE(taken.err.find("in the shelf already"), std::string::npos) << taken.err;
  EXPECT_EQ(Call({"import", shelf(), good, "--replace"}).status, 0);
}

TEST_F(CliEndToEnd, NamesThatAShelfCannotKeepNeedAPrefix) {
  using namespace safetensors;
  std::vector<TensorEntry> tensors = {{"", FindFileDtype("U8"), {1}, 0, 0}};
  WriteAll(path("empty.safetensors"), LayOutHeader(tensors, std::nullopt).value() + "x");
  const Outcome refused = Call({"import", shelf(), path("empty.safetensors")});
  EXPECT_EQ(refused.status, 8);
  EXPECT_NE(refused.err.find("cannot be stored under this name"), std::string::npos) << refused.err;
  EXPECT_EQ(Call({"import", shelf(), path("empty.safetensors"), "--prefix", "p/"}).status, 0);
  WriteAll(path("map.json"), R"({"":"renamed"})");
  EXPECT_EQ(Call({"import", shelf(), path("empty.safetensors"), "--rename-map", path("map.json")}).status, 0);
  EXPECT_EQ(Call({"ls", shelf()}).out, "p/\nrenamed\n");
}

TEST_F(CliEndToEnd, NpyGoesInAndOut) {
  std::string file("\x93NUMPY\1\0v\0", 10);
  file +=
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }" + std::string(58, ' ') + "\n" + RandomBytes(24, 1);
  WriteAll(path("array.npy"), file);
  Import(path("array.npy"));
  ASSERT_EQ(Call({"export", shelf(), "array", path("out.npy")}).status, 0);
  EXPECT_EQ(ReadAll(path("out.npy")), file);
  ASSERT_EQ(Call({"export", shelf(), "array", path("out.bin"), "--format", "raw"}).status, 0);
  EXPECT_EQ(ReadAll(path("out.bin")), file.substr(128));
}

TEST_F(CliEndToEnd, LsInTextAndJson) {
  Import(WriteModel("model.safetensors"));
  EXPECT_EQ(Call({"ls", shelf()}).out, "__metadata__\nlayers.0.bias\nlayers.0.weight\nodd\nscale\n");
  EXPECT_EQ(Call({"ls", shelf(), "layers."}).out, "layers.0.bias\nlayers.0.weight\n");
  EXPECT_EQ(Call({"ls", shelf(), "*.weight"}).out, "layers.0.weight\n");
  EXPECT_EQ(Call({"ls", shelf(), "*.weight", "--literal"}).out, "");
  EXPECT_EQ(Call({"ls", shelf(), "--limit", "1", "--sort", "size"}).out, "layers.0.weight\n");
  EXPECT_EQ(Call({"ls", shelf(), "--reverse", "--limit", "2"}).out, "scale\nodd\n");
  const std::string rows = Call({"ls", shelf(), "--long"}).out;
  EXPECT_NE(rows.find("bfloat16         [1024, 1536]            3.0 MiB"), std::string::npos) << rows;
  EXPECT_NE(rows.find("5 names, 3.1 MiB, at commit 2"), std::string::npos) << rows;
  const nlohmann::json json = Call({"ls", shelf(), "--json"}).json();
  EXPECT_EQ(json["schema_version"], 1);
  EXPECT_EQ(json["count"], 5);
  EXPECT_EQ(json["names"][2]["dtype"], "bfloat16");
  EXPECT_EQ(json["names"][2]["shape"], (std::vector<int>{1024, 1536}));
  EXPECT_TRUE(json["names"][0]["shape"].is_null());
  EXPECT_NE(Call({"ls", shelf(), "--tree"}).out.find("├─ layers."), std::string::npos);
  EXPECT_EQ(Call({"ls", shelf(), "nothing", "--json"}).json()["count"], 0);
}

TEST_F(CliEndToEnd, StatAndInfo) {
  Import(WriteModel("model.safetensors"));
  const nlohmann::json stat = Call({"stat", shelf(), "layers.0.weight", "--json", "--names", "--sums"}).json();
  EXPECT_EQ(stat["object"]["size"], 3 << 20);
  EXPECT_EQ(stat["object"]["sums_count"], 48);
  EXPECT_EQ(stat["object"]["sums"].size(), 48u);
  EXPECT_EQ(stat["object"]["extents"][0]["file"], (shelf_ / "00000001.tsd").string());
  EXPECT_EQ(stat["object"]["known_as"], (std::vector<std::string>{"layers.0.weight"}));
  EXPECT_EQ(Call({"stat", shelf(), "odd", "--json"}).json()["object"]["metadata"]["safetensors.dtype"], "F6_E2M3");
  const Outcome missing = Call({"stat", shelf(), "no\x1b"});
  EXPECT_EQ(missing.status, 8);
  EXPECT_EQ(missing.err.find('\x1b'), std::string::npos);
  const nlohmann::json info = Call({"info", shelf(), "--json", "--count"}).json();
  EXPECT_EQ(info["names"], 5);
  EXPECT_EQ(info["files"].size(), 1u);
  EXPECT_EQ(info["files"][0]["data_end"].get<uint64_t>() - info["files"][0]["data_begin"].get<uint64_t>(), 16u << 20);
  EXPECT_EQ(info["mode"], "read-only");
  EXPECT_NE(Call({"info", shelf()}).out.find("writer        none"), std::string::npos);
}

TEST_F(CliEndToEnd, VerifyFindsEveryFlippedBlockAndGoesOn) {
  Import(WriteModel("model.safetensors"));
  const Outcome clean = Call({"verify", shelf(), "--json"});
  ASSERT_EQ(clean.status, 0) << clean.out << clean.err;
  EXPECT_EQ(clean.json()["names"], 5);
  EXPECT_EQ(clean.json()["damage"].size(), 0u);

  const nlohmann::json stat = Call({"stat", shelf(), "layers.0.weight", "--json"}).json();
  const nlohmann::json extent = stat["object"]["extents"][0];
  const uint64_t begin = extent["offset"].get<uint64_t>();
  {
    std::fstream file(extent["file"].get<std::string>(), std::ios::binary | std::ios::in | std::ios::out);
    for (const uint64_t at : {begin + 5, begin + 7 * 65536 + 100}) {
      file.seekg(static_cast<std::streamoff>(at));
      const char flipped = static_cast<char>(file.get() ^ 1);
      file.seekp(static_cast<std::streamoff>(at));
      file.put(flipped);
    }
  }
  const Outcome damaged = Call({"verify", shelf(), "--json"});
  EXPECT_EQ(damaged.status, 4) << damaged.out;
  const nlohmann::json json = damaged.json();
  EXPECT_EQ(json["names"], 5);
  EXPECT_EQ(json["damaged_names"], 1);
  ASSERT_EQ(json["damage"].size(), 2u) << json;
  EXPECT_EQ(json["damage"][0]["name"], "layers.0.weight");
  EXPECT_EQ(json["damage"][0]["block"], 0);
  EXPECT_EQ(json["damage"][0]["offset"], begin);
  EXPECT_EQ(json["damage"][1]["block"], 7);
  EXPECT_EQ(json["damage"][1]["file"], extent["file"]);
  const Outcome text = Call({"verify", shelf()});
  EXPECT_EQ(text.status, 4);
  EXPECT_NE(text.out.find("damaged  layers.0.weight: block 7, "), std::string::npos) << text.out;
  EXPECT_EQ(Call({"verify", shelf(), "scale"}).status, 0);

  const Outcome exported = Call({"export", shelf(), path("out.safetensors")});
  EXPECT_EQ(exported.status, 4) << exported.err;
  EXPECT_FALSE(fs::exists(path("out.safetensors")));
}

TEST_F(CliEndToEnd, SharedObjectsAreReadOnceButAllNamesAreListed) {
  Import(WriteModel("model.safetensors"));
  {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> store, Store::Open(shelf(), {}));
    ASSERT_OK_AND_ASSIGN(Transaction transaction, store->Begin());
    transaction.Clone("layers.0.weight", "zz-clone");
    ASSERT_OK(transaction.Commit());
    ASSERT_OK(store->Close());
  }
  const nlohmann::json json = Call({"verify", shelf(), "--json"}).json();
  EXPECT_EQ(json["names"], 6);
  EXPECT_EQ(json["objects_read"].get<int>() + json["shared_names"].get<int>(), 6);
  EXPECT_EQ(Call({"stat", shelf(), "zz-clone", "--names", "--json"}).json()["object"]["known_as"].size(), 2u);
}

TEST_F(CliEndToEnd, LookingChangesNothing) {
  Import(WriteModel("model.safetensors"));
  const auto before = Fingerprint(shelf_);
  EXPECT_EQ(Call({"info", shelf(), "--count"}).status, 0);
  EXPECT_EQ(Call({"ls", shelf(), "--long"}).status, 0);
  EXPECT_EQ(Call({"stat", shelf(), "scale", "--sums"}).status, 0);
  EXPECT_EQ(Call({"verify", shelf()}).status, 0);
  EXPECT_EQ(Call({"export", shelf(), path("out.safetensors")}).status, 0);
  EXPECT_EQ(Call({"import", shelf(), path("model.safetensors"), "--dry-run"}).status, 0);
  EXPECT_EQ(Call({"ls", shelf(), "--tree"}).status, 0);
  EXPECT_EQ(Call({"cat", shelf(), "layers.0.weight", "--print", "--stats"}).status, 0);
  EXPECT_EQ(Call({"diff", shelf(), "layers.", "scale"}).status, 0);
  EXPECT_EQ(Call({"df", shelf()}).status, 0);
  EXPECT_EQ(Call({"map", shelf()}).status, 0);
  EXPECT_EQ(Call({"fsck", shelf(), "--deep"}).status, 0);
  EXPECT_EQ(Call({"rm", shelf(), "scale", "--dry-run"}).status, 0);
  EXPECT_EQ(Call({"relocate", shelf(), "--dry-run"}).status, 0);
  EXPECT_EQ(Call({"index", "salvage", shelf(), "--dry-run"}).status, 0);
  EXPECT_EQ(Call({"watch", shelf()}).status, 8) << "nobody writes to it";
  EXPECT_EQ(Fingerprint(shelf_), before);
}

TEST_F(CliEndToEnd, LookingBesideALiveWriter) {
  Import(WriteModel("model.safetensors"));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> writer, Store::Open(shelf(), {}));
  const std::string bytes(100000, 'b');
  ASSERT_OK(writer->Put({.name = "fresh",
                         .kind = ObjectKind::kBytes,
                         .shape = {},
                         .bytes = std::as_bytes(std::span(bytes)),
                         .metadata = {},
                         .precondition = {}}));
  const nlohmann::json info = Call({"info", shelf(), "--json"}).json();
  EXPECT_EQ(info["mode"], "beside-writer");
  EXPECT_FALSE(info["writer"].is_null());
  EXPECT_EQ(info["commit"], 3);
  EXPECT_EQ(Call({"ls", shelf(), "fresh"}).out, "fresh\n");
  EXPECT_EQ(Call({"verify", shelf()}).status, 0);
  const Outcome locked = Call({"import", shelf(), path("model.safetensors"), "--replace", "--json"});
  EXPECT_EQ(locked.status, 8);
  EXPECT_EQ(locked.json()["error"]["kind"], "locked") << locked.out;
}

// The writer reuses space all the time, so what a reader beside it reads may be another object's bytes by now.
TEST_F(CliEndToEnd, VerifyBesideAWriterThatReplacesReportsNoDamage) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> writer, Store::Open(shelf(), {}));
  std::atomic<bool> stop{false};
  absl::Status wrote;
  std::vector<std::string> bytes;  // made ahead: the writer's loop must outrun the reader
  for (uint32_t i = 0; i < 7; ++i) bytes.push_back(RandomBytes(700'000 + i, i));
  std::thread thread([&] {
    for (uint32_t round = 0; wrote.ok() && !stop; ++round) {
      std::vector<PutItem> items(6);
      for (uint32_t i = 0; i < items.size(); ++i) {
        items[i].name = absl::StrCat("t", i);
        items[i].kind = ObjectKind::kBytes;
        items[i].bytes = std::as_bytes(std::span(bytes[(round + i) % bytes.size()]));
      }
      wrote = writer->Put(items).status();
      if (wrote.ok() && round % 3 == 2) {
        absl::StatusOr<Transaction> transaction = writer->Begin();
        transaction->Delete("t0");
        wrote = transaction->Commit().status();
      }
    }
  });
  // The rate limit lies between looking an object up and reading it: time for the writer to come first.
  uint64_t changed = 0;
  for (int run = 0; run < 30 && (run < 3 || changed == 0); ++run) {
    const Outcome verified = Call({"verify", shelf(), "--json", "--rate", "8MiB"});
    EXPECT_EQ(verified.status, 0) << verified.out << verified.err;
    if (verified.status != 0) break;
    changed += verified.json()["changed_names"].get<uint64_t>();
    const Outcome listed = Call({"ls", shelf(), "--long"});
    EXPECT_EQ(listed.status, 0) << listed.err;
  }
  stop = true;
  thread.join();
  EXPECT_OK(wrote);
  EXPECT_GT(changed, 0u);
}

TEST_F(CliEndToEnd, RateLimitHolds) {
  Import(WriteModel("model.safetensors"));
  const nlohmann::json json = Call({"verify", shelf(), "--rate", "16MiB", "--json"}).json();
  // 3.08 MiB at 16 MiB/s.
  EXPECT_GT(json["seconds"].get<double>(), 0.15);
}

TEST(CliUsage, WrongCommandLinesAre16) {
  EXPECT_EQ(Call({}).status, 16);
  EXPECT_EQ(Call({"frobnicate"}).status, 16);
  EXPECT_EQ(Call({"ls"}).status, 16);
  EXPECT_EQ(Call({"ls", "x", "--sort", "colour"}).status, 16);
  EXPECT_EQ(Call({"create", "/nonexistent/x", "--capacity", "lots"}).status, 16);
  EXPECT_EQ(Call({"--help"}).status, 0);
  EXPECT_NE(Call({"ls", "--help"}).out.find("--tree"), std::string::npos);
}

TEST(CliUsage, AMissingShelfIsOperational) {
  const Outcome outcome = Call({"info", "/nonexistent/shelf", "--json"});
  EXPECT_EQ(outcome.status, 8);
  EXPECT_EQ(outcome.json()["error"]["code"], "NOT_FOUND");
  EXPECT_FALSE(outcome.err.empty());
}

}  // namespace
}  // namespace tensorshelf::cli
