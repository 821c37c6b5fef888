// The writer of index_processes_test.cc, a program of its own: RocksDB's threads do not survive a fork. Commits to the
// index at argv[1], which it makes, until it is killed; writes each acknowledged commit number to standard output.

#include <cstdint>
#include <cstdio>
#include <string>

#include "index/index.h"
#include "tests/index/temporary_index.h"

namespace tensorshelf {
namespace {

using testing::NameOf;
using testing::SmallRecord;

// Commit n gives all of 50 names the generation n, so that a reader can tell a mixture of two commits.
absl::Status CommitRound(Index& index, uint64_t n) {
  auto batch = index.NewBatch();
  for (int i = 0; i < 50; ++i) batch->PutName("name" + std::to_string(i), NameOf(n));
  if (absl::Status status = batch->PutObject(SmallRecord(n), {}); !status.ok()) return status;
  if (n > 1) batch->DeleteObject(SmallRecord(n - 1));
  if (absl::Status status = index.Commit(*batch, n); !status.ok()) return status;
  // Files come and go under the readers, faster than they would on their own.
  return n % 200 == 0 ? index.Flush() : absl::OkStatus();
}

int Write(const std::string& path) {
  IndexOptions options;
  options.memtable_bytes = 256 << 10;
  auto index = Index::Open(path, Index::Mode::kCreate, options);
  if (!index.ok()) return 1;
  for (uint64_t n = 1;; ++n) {
    if (!CommitRound(**index, n).ok()) return 2;
    if (std::fwrite(&n, sizeof n, 1, stdout) != 1 || std::fflush(stdout) != 0) return 3;
  }
}

}  // namespace
}  // namespace tensorshelf

int main(int argc, char** argv) { return argc == 2 ? tensorshelf::Write(argv[1]) : 64; }
