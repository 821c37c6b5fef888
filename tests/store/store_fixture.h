// A store in a temporary directory on a real file system, and the few calls that most tests make of it.

#ifndef TENSORSHELF_TESTS_STORE_STORE_FIXTURE_H_
#define TENSORSHELF_TESTS_STORE_STORE_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "store/store.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {

inline std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  for (; at < size; ++at) bytes[at] = static_cast<char>(random());
  return bytes;
}

inline std::span<std::byte> Span(std::string& bytes) { return std::as_writable_bytes(std::span(bytes)); }

// The item refers to `bytes`; keep it alive until the put returns.
inline PutItem BytesItem(const std::string& name, const std::string& bytes) {
  return {.name = name, .kind = ObjectKind::kBytes, .bytes = std::as_bytes(std::span(bytes))};
}

inline void FlipByte(const std::string& file, uint64_t offset) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  const int byte = stream.get();
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(static_cast<char>(byte ^ 0x10));
  ASSERT_TRUE(stream.good());
}

class StoreFixture : public ::testing::Test {
 protected:
  StoreFixture() {
    std::string pattern = (std::filesystem::current_path() / "store_test.XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    path_ = root_ + "/shelf";
  }
  ~StoreFixture() override {
    store_.reset();
    std::filesystem::remove_all(root_);
  }

  void Create(uint64_t capacity = uint64_t{64} << 20) {
    CreateOptions options;
    options.capacity = capacity;
    options.devices = devices_;
    options.prefill = Prefill::kNone;
    ASSERT_OK(Store::Create(path_, options));
  }
  void Open() {
    auto opened = Store::Open(path_, options_);
    ASSERT_OK(opened);
    store_ = *std::move(opened);
  }
  void Reopen() {
    ASSERT_OK(store_->Close());
    store_.reset();
    Open();
  }
  std::string ReadAll(const Object& object) {
    std::string bytes(object.size_bytes(), '\0');
    const ReadRequest request{.object = &object, .offset = 0, .to = Span(bytes)};
    const absl::Status status = store_->Read({&request, 1}, {});
    EXPECT_OK(status);
    return bytes;
  }
  std::string Get(const std::string& name) {
    auto object = store_->Find(name);
    if (!object.ok()) return object.status().ToString();
    return ReadAll(*object);
  }
  absl::Status Delete(const std::string& name) {
    auto transaction = store_->Begin();
    if (!transaction.ok()) return transaction.status();
    transaction->Delete(name);
    return transaction->Commit().status();
  }
  std::vector<std::string> Names(const std::string& prefix) {
    std::vector<std::string> names;
    EXPECT_OK(store_->Scan(prefix, "", [&](const std::string& name, uint64_t) {
      names.push_back(name);
      return true;
    }));
    return names;
  }

  std::string root_;
  std::string path_;
  std::vector<std::string> devices_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_STORE_FIXTURE_H_
