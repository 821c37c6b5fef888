// Goal: a shelf that somebody else made, with the worst in every place that is read, cannot crash whoever opens it,
// make it read outside the shelf, wait for ever, or eat its memory. Method: one closed store, each part of it replaced
// by something hostile with its hash made right; opened read-only and read-write in a process of limited memory.

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "store/label.h"
#include "tests/store/shelf_copy.h"

namespace tensorshelf {
namespace {

namespace fs = std::filesystem;
using testing::IsOk;

constexpr uint64_t kMemoryMax = uint64_t{2} << 30;  // of address space, beyond what the test has

class HostileShelfTest : public ShelfCopyFixture {
 protected:
  HostileShelfTest() {
    MakeOriginal({{.kind = ModelOp::Kind::kPut, .name = "a", .value = {.size = 100000, .seed = 1}},
                  {.kind = ModelOp::Kind::kPut, .name = "b", .value = {.size = 5000, .seed = 2}}});
    Restore();
  }
  std::string data_file() const { return shelf_ + "/00000001.tsd"; }

  // Opens in both modes, lists and reads everything, in a child with little memory and a time limit. "" when the child
  // ended by itself and no name gave other bytes than it was put with.
  std::string Survives() {
    std::string problems;
    for (const auto mode : {StoreOptions::Mode::kReadOnly, StoreOptions::Mode::kReadWrite}) {
#ifdef __SANITIZE_THREAD__  // follows no threads that a forked child starts
      if (const int ended = Visit(mode); ended != 0) absl::StrAppend(&problems, "ended with ", ended, "; ");
      continue;
#endif
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(60);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        rlimit limit{};
        ::getrlimit(RLIMIT_AS, &limit);
        std::ifstream statm("/proc/self/statm");
        uint64_t pages = 0;
        statm >> pages;
        limit.rlim_cur = pages * 4096 + kMemoryMax;
        ::setrlimit(RLIMIT_AS, &limit);
#endif
        ::_exit(Visit(mode));
      }
      int status = 0;
      EXPECT_EQ(::waitpid(child, &status, 0), child);
      const bool read_only = mode == StoreOptions::Mode::kReadOnly;
      if (WIFSIGNALED(status)) {
        absl::StrAppend(&problems, read_only ? "reader" : "writer", " died of signal ", WTERMSIG(status), "; ");
      } else if (WEXITSTATUS(status) != 0) {
        absl::StrAppend(&problems, read_only ? "reader" : "writer", " ended with ", WEXITSTATUS(status), "; ");
      }
    }
    return problems;
  }

  int Visit(StoreOptions::Mode mode) {
    StoreOptions options = SmallOptions();
    options.mode = mode;
    auto store = Store::Open(shelf_, options);
    if (!store.ok()) return store.status().message().empty() ? 10 : 0;
    std::vector<std::string> names;
    (*store)
        ->Scan("", "",
               [&](const std::string& name, uint64_t) {
                 names.push_back(name);
                 return true;
               })
        .IgnoreError();
    for (const std::string& name : names) {
      const auto object = (*store)->Find(name);
      if (!object.ok() || object->size_bytes() > (uint64_t{1} << 28)) continue;
      std::string bytes(object->size_bytes(), '\0');
      const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
      if (!(*store)->Read({&request, 1}, {}).ok()) continue;
      const auto put = model_.find(name);
      if (put == model_.end() || bytes != put->second.bytes()) return 11;
    }
    if (mode == StoreOptions::Mode::kReadWrite && !(*store)->Close().ok()) return 12;
    return 0;
  }

  // The rows of the index, written past the library.
  void ChangeRows(const std::function<void(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* objects)>& change) {
    fs::remove(shelf_ + "/freemap");  // which would save the next open from looking at them
    const std::string path = shelf_ + "/index";
    std::vector<std::string> names;
    ASSERT_TRUE(rocksdb::DB::ListColumnFamilies(rocksdb::DBOptions(), path, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* raw = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::DBOptions(), path, families, &handles, &raw).ok());
    const std::unique_ptr<rocksdb::DB> db(raw);
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] == "objects") change(*db, handles[i]);
    }
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  }
  // Each record of an object, with its hash made right after `change`.
  void ChangeRecords(const std::function<void(std::string& record)>& change, bool rehash = true) {
    int changed = 0;
    ASSERT_NO_FATAL_FAILURE(ChangeRows([&](rocksdb::DB& db, rocksdb::ColumnFamilyHandle* objects) {
      const std::unique_ptr<rocksdb::Iterator> row(db.NewIterator(rocksdb::ReadOptions(), objects));
      for (row->SeekToFirst(); row->Valid(); row->Next(), ++changed) {
        std::string record = row->value().ToString();
        change(record);
        if (rehash) {
          StoreLittle(reinterpret_cast<std::byte*>(record.data()) + record.size() - 8,
                      Hash64(BytesOf(record).first(record.size() - 8)));
        }
        ASSERT_TRUE(db.Put(rocksdb::WriteOptions(), objects, row->key(), record).ok());
      }
    }));
    ASSERT_EQ(changed, 2);
  }
  static void Set64(std::string& bytes, size_t at, uint64_t value) {
    StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + at, value);
  }
};

// All three copies, so that nothing better is found.
TEST_F(HostileShelfTest, ALabelThatClaimsAnExabyte) {
  const uint64_t size = fs::file_size(data_file());
  const uint64_t exabyte = uint64_t{1} << 60;
  for (const bool whole : {true, false}) {
    Restore();
    std::fstream file(data_file(), std::ios::in | std::ios::out | std::ios::binary);
    for (const uint64_t at : {uint64_t{0}, uint64_t{4096}, size - (1 << 20)}) {
      std::string label(4096, '\0');
      file.seekg(static_cast<std::streamoff>(at));
      file.read(label.data(), 4096);
      ASSERT_EQ(label.substr(0, 8), "TSHLABEL");
      if (whole) Set64(label, 56, exabyte);
      Set64(label, 72, exabyte - (1 << 20));
      Set64(label, 4088, Hash64(BytesOf(label).first(4088)));
      file.seekp(static_cast<std::streamoff>(at));
      file.write(label.data(), 4096);
    }
    file.close();
    EXPECT_FAILS(Store::Open(shelf_, SmallOptions()), absl::StatusCode::kDataLoss, data_file());
    EXPECT_EQ(Survives(), "");
  }
}

TEST_F(HostileShelfTest, RecordsThatPointPastTheEnd) {
  // A record without stripes: 72 trailer extent, 88 u32 count, 92 extents of {u32 file, u32 units, u64 first unit}.
  for (const uint64_t unit : {uint64_t{1} << 20, uint64_t{1} << 51, UINT64_MAX, uint64_t{0}}) {
    Restore();
    ASSERT_NO_FATAL_FAILURE(ChangeRecords([&](std::string& record) { Set64(record, 100, unit); }));
    EXPECT_EQ(Survives(), "") << unit;
  }
  // Into the label of its own file: nothing there is read, and no space is free.
  {
    StoreOptions options = SmallOptions();
    options.mode = StoreOptions::Mode::kReadOnly;
    ASSERT_OK_AND_ASSIGN(const auto reader, Store::Open(shelf_, options));
    ASSERT_OK_AND_ASSIGN(const Object object, reader->Find("a"));
    std::string bytes(object.size_bytes(), '\0');
    const ReadRequest request{.object = &object, .offset = 0, .to = Span(bytes)};
    EXPECT_FAILS(reader->Read({&request, 1}, {}), absl::StatusCode::kDataLoss, "outside the data area");
  }
  const auto opened = Store::Open(shelf_, SmallOptions());
  if (opened.ok()) {
    const std::string bytes = "x";
    EXPECT_EQ(KindOf((*opened)->Put(BytesItem("x", bytes)).status()), ErrorKind::kReadOnly);
  }
}

TEST_F(HostileShelfTest, ShapesAndSizesThatOverflow) {
  for (const size_t field : {24, 32}) {  // logical and stored bytes
    for (const uint64_t bytes : {uint64_t{1} << 63, UINT64_MAX, uint64_t{1} << 40}) {
      Restore();
      ASSERT_NO_FATAL_FAILURE(ChangeRecords([&](std::string& record) { Set64(record, field, bytes); }));
      EXPECT_EQ(Survives(), "") << "field at " << field << ", " << bytes;
      Restore();
      ASSERT_NO_FATAL_FAILURE(ChangeRecords([&](std::string& record) {
        Set64(record, 24, bytes);
        Set64(record, 32, bytes);
      }));
      EXPECT_EQ(Survives(), "") << "both, " << bytes;
    }
  }
  Restore();
  // 2^63 extents, sums or dimensions, as far as their counts can say so.
  for (const size_t at : {size_t{6}, size_t{10}, size_t{88}}) {
    Restore();
    ASSERT_NO_FATAL_FAILURE(ChangeRecords([&](std::string& record) {
      for (size_t i = at; i < at + (at == 88 ? 4 : at == 10 ? 2 : 1); ++i) record[i] = '\xff';
    }));
    EXPECT_EQ(Survives(), "") << at;
  }
}

// Space that an undecodable record may own is never free: the store is read-only, and the rest of it is readable.
TEST_F(HostileShelfTest, AnUndecodableRecordMakesTheStoreReadOnly) {
  ASSERT_NO_FATAL_FAILURE(ChangeRecords(
      [&, first = true](std::string& record) mutable {
        if (std::exchange(first, false)) record.resize(record.size() / 2);
      },
      /*rehash=*/false));
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, SmallOptions()));
  const std::string bytes = RandomBytes(9000, 3);
  EXPECT_EQ(KindOf(store->Put(BytesItem("new", bytes)).status()), ErrorKind::kReadOnly);
  int readable = 0;
  for (const auto& [name, value] : model_) {
    const auto object = store->Find(name);
    if (!object.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(object.status())) << object.status();
      continue;
    }
    std::string read(object->size_bytes(), '\0');
    const ReadRequest request{.object = &*object, .offset = 0, .to = Span(read)};
    EXPECT_OK(store->Read({&request, 1}, {}));
    EXPECT_EQ(read, value.bytes());
    ++readable;
  }
  EXPECT_EQ(readable, 1);
}

TEST_F(HostileShelfTest, FifosAndLinksInPlaceOfFiles) {
  for (const std::string name :
       {"STORE", "LOCK", "freemap", "counters", "index.ballast", "00000001.tsd", "00000002.tsd"}) {
    Restore();
    fs::remove(shelf_ + "/" + name);
    ASSERT_EQ(::mkfifo((shelf_ + "/" + name).c_str(), 0600), 0);
    EXPECT_EQ(Survives(), "") << "a FIFO as " << name;
  }
  const std::string outside = root_ + "/outside";
  for (const std::string name :
       {"STORE", "LOCK", "freemap", "counters", "index.ballast", "00000001.tsd", "00000002.tsd"}) {
    Restore();
    const std::string path = shelf_ + "/" + name;
    std::ofstream(outside) << "somebody else's";
    fs::remove(path);
    fs::create_symlink(outside, path);
    EXPECT_EQ(Survives(), "") << "a link as " << name;
    std::ifstream after(outside);
    std::string text;
    std::getline(after, text);
    EXPECT_EQ(text, "somebody else's") << "written through the link " << name;
  }
}

TEST_F(HostileShelfTest, AStoreFileThatLeadsElsewhereOrNeverEnds) {
  std::ifstream in(shelf_ + "/STORE");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  std::ofstream(shelf_ + "/STORE") << text << std::string(std::size_t{8} << 20, '#');
  EXPECT_EQ(Survives(), "");
  EXPECT_FALSE(Store::Open(shelf_, SmallOptions()).ok());
  fs::resize_file(shelf_ + "/STORE", uint64_t{1} << 40);  // of holes
  EXPECT_EQ(Survives(), "");
  // Hints may lead anywhere, files there count only with the store's own labels.
  for (const std::string hint : {"../../../../etc", "/proc/self/fd", "/dev", ".", "../shelf"}) {
    Restore();
    std::string changed = text;
    const size_t line = changed.find("device=");
    ASSERT_NE(line, std::string::npos);
    const size_t begin = changed.find(' ', line) + 1;
    changed.replace(begin, changed.find('\n', begin) - begin, hint);
    std::ofstream(shelf_ + "/STORE") << changed;
    EXPECT_EQ(Survives(), "") << hint;
  }
}

TEST(FileModeTest, EverythingIsTheOwnersAlone) {
  std::string pattern = (fs::temp_directory_path() / "tensorshelf_mode.XXXXXX").string();
  const std::string root = ::mkdtemp(pattern.data());
  const mode_t mask = ::umask(0);
  for (const bool group : {false, true}) {
    const std::string shelf = absl::StrCat(root, "/", group);
    CreateOptions options;
    options.capacity = kCapacityMin;
    options.prefill = Prefill::kNone;
    options.group_readable = group;
    ASSERT_OK(Store::Create(shelf, options));
    {
      ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf, {.page_locked = false}));
      ASSERT_OK(store->Close());
    }
    const auto mode_of = [](const std::string& path) { return static_cast<unsigned>(fs::status(path).permissions()); };
    EXPECT_EQ(mode_of(shelf), group ? 0750u : 0700u);
    EXPECT_EQ(mode_of(shelf + "/00000001.tsd"), group ? 0640u : 0600u);
    for (const auto& entry : fs::directory_iterator(shelf)) {
      if (entry.is_directory()) continue;  // what is in the index's is behind the shelf's mode
      EXPECT_EQ(mode_of(entry.path().string()) & (group ? 0027u : 0077u), 0u) << entry.path();
    }
  }
  ::umask(mask);
  fs::remove_all(root);
}

}  // namespace
}  // namespace tensorshelf
