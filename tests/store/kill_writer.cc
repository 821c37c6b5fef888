// Writes into a store until it is killed: kill_writer <shelf> <seed> <first number>. On standard output, one line a
// change that was acknowledged: "put <name> <size> <seed>" or "delete <name>"; before each change the same with "?".

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/move.h"
#include "tests/store/store_fixture.h"

namespace {

// Straight to the descriptor: what is buffered here would die with the process.
bool Say(const std::string& line) {
  return ::write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

int Run(const std::string& shelf, uint64_t seed, uint64_t number) {
  using namespace tensorshelf;
  StoreOptions options;
  options.staging_bytes = 4 << 20;
  options.page_locked = false;
  options.idle_witness_ms = static_cast<int64_t>(seed % 3) * 5 + 1;
  options.index.memtable_bytes = 64 << 10;
  auto store = Store::Open(shelf, options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  std::mt19937_64 random(seed);
  for (;; ++number) {
    const std::string name = absl::StrCat("n", random() % 20);
    const uint64_t sizes[] = {50, 4000, 70000, 300000};
    const uint64_t size = sizes[random() % 4];
    const bool remove = random() % 5 == 0;
    const std::string change =
        remove ? absl::StrCat("delete ", name, "\n") : absl::StrCat("put ", name, " ", size, " ", number, "\n");
    if (random() % 3 == 0) {  // changes nothing that the store holds
      const MoveRequest move{.name = absl::StrCat("n", random() % 20)};
      const auto moved = (*store)->Move({&move, 1});
      if (!moved.ok() && !absl::IsNotFound(moved.status())) return 5;
    }
    if (!Say(absl::StrCat("?", change))) return 2;
    absl::Status status;
    if (remove) {
      auto transaction = (*store)->Begin();
      if (!transaction.ok()) return 3;
      transaction->Delete(name, /*missing_ok=*/true);
      status = transaction->Commit().status();
    } else {
      const std::string bytes = RandomBytes(size, number);
      status = (*store)->Put(BytesItem(name, bytes)).status();
    }
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 4;
    }
    if (!Say(change)) return 2;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 64;
  return Run(argv[1], std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10));
}
