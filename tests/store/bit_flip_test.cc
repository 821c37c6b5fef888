// One flipped bit anywhere in a closed store: it either refuses to open, with a status, or opens and every name reads
// equal or fails as damaged. No wrong bytes, and no name goes missing without a word. Trials run in child processes.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/store/shelf_copy.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

void FlipBit(const std::string& path, uint64_t offset, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ (1 << bit));
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  file.flush();
  ASSERT_TRUE(file.good()) << path << " at " << offset;
}

class BitFlipTest : public ShelfCopyFixture {
 protected:
  BitFlipTest() {
    using Kind = ModelOp::Kind;
    const auto put = [](const std::string& name, uint64_t size, uint64_t seed) {
      return ModelOp{.kind = Kind::kPut, .name = name, .value = {.size = size, .seed = seed}};
    };
    std::vector<ModelOp> ops = {put("inline/a", 700, 1), put("small/a", 5000, 2), put("small/b", 9000, 3),
                                put("trailer/a", 150000, 4), put("trailer/b", 1 << 20, 5)};
    for (uint64_t i = 0; i < 40; ++i) ops.push_back(put(absl::StrCat("many/", i), 100 + 30 * i, i));
    ops.push_back({.kind = Kind::kClonePrefix, .name = "small/", .to = "copy/"});
    ops.push_back({.kind = Kind::kDelete, .name = "many/3"});
    MakeOriginal(ops);
  }

  // "" when the damaged store behaves. In this process.
  std::string Judge(StoreOptions::Mode mode) {
    StoreOptions options = SmallOptions();
    options.mode = mode;
    auto store = Store::Open(shelf_, options);
    if (!store.ok()) return TypedRefusal(store.status());
    std::vector<std::string> names;
    const absl::Status scanned = (*store)->Scan("", "", [&](const std::string& name, uint64_t) {
      names.push_back(name);
      return true;
    });
    if (!scanned.ok() && !absl::IsDataLoss(scanned)) return "scan: " + scanned.ToString();
    size_t listed = 0;
    for (const auto& [name, value] : model_) {
      if (listed < names.size() && names[listed] == name) {
        ++listed;
      } else if (scanned.ok()) {
        return name + " is not listed";
      }
      auto object = (*store)->Find(name);
      if (absl::IsDataLoss(object.status())) continue;
      if (!object.ok()) return name + ": " + object.status().ToString();
      std::string bytes(object->size_bytes(), '\0');
      const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
      const absl::Status read = (*store)->Read({&request, 1}, {});
      if (absl::IsDataLoss(read)) continue;
      if (!read.ok()) return name + ": " + read.ToString();
      if (bytes != value.bytes()) return name + ": WRONG BYTES";
    }
    if (scanned.ok() && listed != names.size()) return "a name too many";
    return "";
  }

  static std::string TypedRefusal(const absl::Status& status) {
    const bool typed = absl::IsDataLoss(status) || absl::IsFailedPrecondition(status) || absl::IsNotFound(status) ||
                       absl::IsInvalidArgument(status);
    return typed && !status.message().empty() ? "" : "refused as " + status.ToString();
  }

  // Judge in a child: a crash or a loop there is a failure of this trial alone. The thread sanitizer follows no threads
  // that a forked child starts, so there it is this process.
  std::string JudgeApart(StoreOptions::Mode mode) {
#ifdef __SANITIZE_THREAD__
    return Judge(mode);
#else
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      const std::string problem = Judge(mode);
      const bool told = ::write(ends[1], problem.data(), problem.size()) == static_cast<ssize_t>(problem.size());
      ::_exit(told ? 0 : 1);
    }
    ::close(ends[1]);
    std::string problem;
    char buffer[512];
    for (ssize_t got; (got = ::read(ends[0], buffer, sizeof(buffer))) > 0;) {
      problem.append(buffer, static_cast<size_t>(got));
    }
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status == 0 ? problem : absl::StrCat("the child ended with wait status ", status);
#endif
  }

  // `count` of them, times the scale.
  void TryFlips(const std::string& file, uint64_t begin, uint64_t end, uint64_t count) {
    ASSERT_LT(begin, end) << file;
    for (uint64_t i = 0; i < testing::Scaled(count); ++i) {
      const uint64_t offset = begin + random_() % (end - begin);
      const int bit = static_cast<int>(random_() % 8);
      Restore();
      ASSERT_NO_FATAL_FAILURE(FlipBit(shelf_ + "/" + file, offset, bit));
      const auto mode = i % 3 == 0 ? StoreOptions::Mode::kReadOnly : StoreOptions::Mode::kReadWrite;
      ASSERT_EQ(JudgeApart(mode), "") << file << ", bit " << bit << " of byte " << offset << ", seed " << seed_;
      testing::ReportTried(++tried_, seed_);
    }
  }

  static constexpr char kDataFile[] = "00000001.tsd";
  const uint64_t seed_ = testing::Seed(6);
  std::mt19937_64 random_{seed_};
  uint64_t tried_ = 0;
};

// The bytes of objects: reads and nothing else notice, and name the victim.
TEST_F(BitFlipTest, DataBlocks) {
  Restore();
  StoreOptions options = SmallOptions();
  options.mode = StoreOptions::Mode::kReadOnly;
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
  const uint64_t count = testing::Scaled(200);
  testing::ReportTried(count, seed_);
  for (uint64_t i = 0; i < count; ++i) {
    const char* kNames[] = {"small/a", "small/b", "trailer/a", "trailer/b"};
    const std::string name = kNames[i % 4];
    ASSERT_OK_AND_ASSIGN(const Object object, store->Find(name));
    const uint64_t offset = random_() % object.size_bytes();
    const BlockPosition position = store->PositionOf(object, offset);
    const int bit = static_cast<int>(random_() % 8);
    ASSERT_NO_FATAL_FAILURE(FlipBit(position.file, position.offset, bit));
    std::string bytes(object.size_bytes(), '\0');
    const ReadRequest request{.object = &object, .offset = 0, .to = Span(bytes)};
    const absl::Status read = store->Read({&request, 1}, {});
    ASSERT_EQ(KindOf(read), ErrorKind::kCorruption) << read << " " << name << " at " << offset << ", seed " << seed_;
    ASSERT_EQ(CorruptionOf(read)->name, name);
    ASSERT_EQ(CorruptionOf(read)->block, offset / object.record().block_bytes());
    const uint64_t block = object.record().block_bytes();
    const std::string handed_out = bytes.substr(offset / block * block, block);
    ASSERT_EQ(handed_out, std::string(handed_out.size(), '\0')) << "bytes of a damaged block were handed out";
    ASSERT_NO_FATAL_FAILURE(FlipBit(position.file, position.offset, bit));
    ASSERT_OK(store->Read({&request, 1}, {}));
    ASSERT_EQ(bytes, model_[name].bytes());
  }
}

TEST_F(BitFlipTest, LabelsAndSlots) {
  TryFlips(kDataFile, 0, 256, 10);
  TryFlips(kDataFile, 4096, 4096 + 256, 6);
  const uint64_t size = std::filesystem::file_size(original_ + "/" + kDataFile);
  TryFlips(kDataFile, size - (1 << 20), size - (1 << 20) + 256, 6);
  for (int slot = 0; slot < 16; ++slot) {
    TryFlips(kDataFile, (64 << 10) + slot * 4096, (64 << 10) + slot * 4096 + 80, 2);
  }
  EXPECT_EQ(tried_, testing::Scaled(10) + 2 * testing::Scaled(6) + 16 * testing::Scaled(2));
}

TEST_F(BitFlipTest, StoreFileAndFreemap) {
  TryFlips("STORE", 0, std::filesystem::file_size(original_ + "/STORE"), 20);
  TryFlips("freemap", 0, std::filesystem::file_size(original_ + "/freemap"), 20);
}

TEST_F(BitFlipTest, EveryFileOfTheIndex) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(original_ + "/index")) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path().filename().string());
  }
  ASSERT_GE(files.size(), 5u);
  for (const std::string& file : files) {
    const uint64_t size = std::filesystem::file_size(original_ + "/index/" + file);
    const uint64_t count = absl::StartsWith(file, "MANIFEST") ? 40 : absl::EndsWith(file, ".sst") ? 10 : 5;
    TryFlips("index/" + file, 0, size, count);
  }
  EXPECT_GT(tried_, testing::Scaled(60));
}

}  // namespace
}  // namespace tensorshelf
