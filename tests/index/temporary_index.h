// A directory that goes with the test, and records to put into an index there.

#ifndef TENSORSHELF_TESTS_INDEX_TEMPORARY_INDEX_H_
#define TENSORSHELF_TESTS_INDEX_TEMPORARY_INDEX_H_

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "index/index.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf::testing {

// Makes a directory of its own; removes it with all in it. In memory where there is such a file system: no test here
// depends on what a sync does, and most of their time would be syncs.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    for (const std::string& parent : {std::string("/dev/shm"), ::testing::TempDir()}) {
      std::string path = (std::filesystem::path(parent) / "index_test.XXXXXX").string();
      if (::mkdtemp(path.data()) == nullptr) continue;
      path_ = path;
      return;
    }
  }
  ~TemporaryDirectory() {
    std::error_code ignored;  // the test is over
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Closes what `index` holds and opens the index again.
inline absl::Status Reopen(std::unique_ptr<Index>& index, const std::string& path, const IndexOptions& options = {}) {
  index.reset();
  auto opened = Index::Open(path, Index::Mode::kReadWrite, options);
  if (!opened.ok()) return opened.status();
  index = std::move(opened).value();
  return absl::OkStatus();
}

// An object of one 64 KiB block in one extent.
inline ObjectRecord SmallRecord(uint64_t generation) {
  ObjectRecord record;
  record.placement = Placement::kExtents;
  record.dtype = 3;
  record.generation = generation;
  record.logical_bytes = 60000;
  record.stored_bytes = 60000;
  record.created_ns = 1'700'000'000'000'000'000 + static_cast<int64_t>(generation);
  record.columns = {{Extent{.file_id = 1, .units = 15, .first_unit = generation * 16}}};
  record.shape = {150, 100};
  record.sums = {generation * 7919};
  return record;
}

inline ObjectRecord InlineRecord(uint64_t generation, uint64_t bytes) {
  ObjectRecord record;
  record.kind = ObjectKind::kBytes;
  record.placement = Placement::kInline;
  record.generation = generation;
  record.logical_bytes = bytes;
  record.stored_bytes = bytes;
  return record;
}

inline NameRow NameOf(uint64_t generation) { return NameRow{.flags = 0, .generation = generation, .tlvs = {}}; }

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_INDEX_TEMPORARY_INDEX_H_
