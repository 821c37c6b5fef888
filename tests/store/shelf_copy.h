// A finished store on disk and cheap fresh copies of it, for tests that damage or interrupt one store many times.

#ifndef TENSORSHELF_TESTS_STORE_SHELF_COPY_H_
#define TENSORSHELF_TESTS_STORE_SHELF_COPY_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "store/store.h"
#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"

namespace tensorshelf {

// In memory where there is a place for it, since syncs are not what these tests are about.
class ShelfCopyFixture : public ::testing::Test {
 protected:
  ShelfCopyFixture() {
    std::string pattern =
        (::access("/dev/shm", W_OK) == 0 ? std::string("/dev/shm") : std::filesystem::current_path().string()) +
        "/tensorshelf_copy.XXXXXX";
    root_ = mkdtemp(pattern.data());
    original_ = root_ + "/original";
    shelf_ = root_ + "/shelf";
  }
  ~ShelfCopyFixture() override { std::filesystem::remove_all(root_); }

  static StoreOptions SmallOptions() {
    StoreOptions options;
    options.staging_bytes = 2 << 20;
    options.result_pool_bytes = 4 << 20;
    options.page_locked = false;
    options.background_fill = false;
    options.idle_witness_ms = 100000;
    options.io.worker_count = 1;
    options.io.io_size = 256 << 10;
    options.io.retry_deadline_ms = 10;
    options.index.memtable_bytes = 64 << 10;
    options.index.block_cache_bytes = 1 << 20;
    return options;
  }

  void MakeOriginal(const std::vector<ModelOp>& ops) {
    CreateOptions options;
    options.capacity = kCapacityMin;
    options.prefill = Prefill::kNone;
    ASSERT_OK(Store::Create(original_, options));
    ASSERT_OK_AND_ASSIGN(auto store, Store::Open(original_, SmallOptions()));
    for (const ModelOp& op : ops) {
      ASSERT_EQ(Apply(model_, op), absl::StatusCode::kOk);
      ASSERT_OK(Apply(*store, op)) << Describe(op);
    }
    ASSERT_OK(store->Close());
    ballast_bytes_ = std::filesystem::file_size(original_ + "/index.ballast");
    std::filesystem::remove(original_ + "/index.ballast");
  }
  // `shelf_` is as the original again.
  void Restore() {
    namespace fs = std::filesystem;
    fs::remove_all(shelf_);
    fs::create_directory(shelf_);
    for (const auto& entry : fs::directory_iterator(original_)) {
      const std::string to = shelf_ + "/" + entry.path().filename().string();
      if (entry.path().extension() == ".tsd") {
        CopySparsely(entry.path().string(), to);
      } else {
        fs::copy(entry.path(), to, fs::copy_options::recursive);
      }
    }
    std::ofstream(shelf_ + "/index.ballast").close();  // of its length, without blocks
    fs::resize_file(shelf_ + "/index.ballast", ballast_bytes_);
  }

  static void CopySparsely(const std::string& from, const std::string& to) {
    std::ifstream source(from, std::ios::binary);
    std::ofstream target(to, std::ios::binary);
    std::string chunk(64 << 10, '\0');
    const std::string zeros = chunk;
    for (uint64_t at = 0; source.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || source.gcount() > 0;
         at += chunk.size()) {
      if (chunk == zeros) continue;
      target.seekp(static_cast<std::streamoff>(at));
      target.write(chunk.data(), source.gcount());
    }
    target.close();
    std::filesystem::resize_file(to, std::filesystem::file_size(from));
  }

  std::string root_;
  std::string original_;
  std::string shelf_;
  uint64_t ballast_bytes_ = 0;
  Model model_;  // what the original holds
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_SHELF_COPY_H_
