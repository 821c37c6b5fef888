// A shelf in a temporary folder, and the tool as a function: what the tests of the command line share.

#ifndef TENSORSHELF_TESTS_TOOLS_CLI_FIXTURE_H_
#define TENSORSHELF_TESTS_TOOLS_CLI_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/dtype.h"
#include "store/store.h"
#include "tests/testing/status_matchers.h"
#include "tools/cli/run.h"
#include "tools/safetensors/header.h"

namespace tensorshelf::cli {

namespace fs = std::filesystem;

struct Outcome {
  int status = -1;
  std::string out, err;
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

inline Outcome Call(const std::vector<std::string>& arguments, const std::string& typed = "") {
  std::vector<const char*> argv = {"tensorshelf"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, err;
  std::istringstream in(typed);
  Console console{out, err};
  if (!typed.empty()) console.in = &in;
  Outcome outcome;
  outcome.status = Run(static_cast<int>(argv.size()), argv.data(), console);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

inline std::string ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void WriteAll(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

inline std::string RandomBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// Flips one bit.
inline void Flip(const fs::path& path, uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char flipped = static_cast<char>(file.get() ^ 1);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(flipped);
  ASSERT_TRUE(file.good());
}

// Everything below a folder: kind, times, mode and content of each entry.
inline std::map<std::string, std::string> Fingerprint(const fs::path& folder) {
  std::map<std::string, std::string> entries;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    struct stat status {};
    EXPECT_EQ(lstat(entry.path().c_str(), &status), 0);
    const std::string content = entry.is_regular_file() ? ReadAll(entry.path()) : "";
    entries[entry.path().string()] = absl::StrCat(status.st_mode, " ", status.st_size, " ", status.st_mtim.tv_sec, ".",
                                                  status.st_mtim.tv_nsec, " ", std::hash<std::string>()(content));
  }
  return entries;
}

class CliFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    const ::testing::TestInfo& test = *::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / absl::StrCat("tensorshelf_cli_", test.name(), "_", getpid());
    fs::create_directories(folder_);
    shelf_ = folder_ / "shelf";
    const Outcome created = Call({"create", shelf_.string(), "--capacity", "16MiB", "--prefill", "none"});
    ASSERT_EQ(created.status, 0) << created.err;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string shelf() const { return shelf_.string(); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // A file of four tensors: 3 MiB, an odd one, a scalar, 6-bit values.
  std::string WriteModel(const std::string& name) {
    using namespace safetensors;
    std::vector<TensorEntry> tensors = {{"layers.0.weight", FindFileDtype("BF16"), {1024, 1536}, 0, 0},
                                        {"layers.0.bias", FindFileDtype("U8"), {77777}, 0, 0},
                                        {"scale", FindFileDtype("F32"), {}, 0, 0},
                                        {"odd", FindFileDtype("F6_E2M3"), {4}, 0, 0}};
    std::string bytes = LayOutHeader(tensors, FileMetadata{{"format", "pt"}}).value();
    bytes += RandomBytes(tensors.back().end, 7);
    WriteAll(path(name), bytes);
    return path(name);
  }
  void Import(const std::string& file) {
    const Outcome imported = Call({"import", shelf(), file});
    ASSERT_EQ(imported.status, 0) << imported.err;
  }

  std::unique_ptr<Store> OpenStore() { return Store::Open(shelf(), {.page_locked = false}).value(); }
  // One bytes object.
  static void PutBytes(Store& store, const std::string& name, const std::string& bytes) {
    PutItem item;
    item.name = name;
    item.kind = ObjectKind::kBytes;
    item.bytes = std::as_bytes(std::span(bytes));
    ASSERT_OK(store.Put(item));
  }

  fs::path folder_, shelf_;
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TESTS_TOOLS_CLI_FIXTURE_H_
