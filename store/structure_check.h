// Checks what a shelf is made of: STORE, labels, witness slots, the index, records, space. No tensor is read; that is
// store/verify.h. Goes on after a finding as far as it can, and mends what can be mended when asked.

#ifndef TENSORSHELF_STORE_STRUCTURE_CHECK_H_
#define TENSORSHELF_STORE_STRUCTURE_CHECK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "index/record.h"

namespace tensorshelf {

struct Finding {
  enum class Level {
    kNote,     // worth knowing; all is well
    kWarning,  // something superfluous or worn; nothing is lost
    kError,    // damage
  };
  Level level = Level::kError;
  // store_file, data_file, label, witness, index, lost_commits, file_older, device_missing, orphan_file, leftover,
  // super, name, record, sums, nameless, count, space, freemap
  std::string code;
  std::string message;             // one line, names escaped
  std::string file;                // path; empty: about no one file
  std::optional<uint64_t> offset;  // in the file, bytes
  std::string name;                // as it is, not escaped; empty: about no name
  uint64_t generation = 0;
  std::string repair;         // what would mend it; empty: nothing here can
  bool repair_loses = false;  // and something is given up by it
};

struct StructureCheckOptions {
  bool deep = false;    // every checksum of the index's own files, too
  bool repair = false;  // false: not one byte is written
  // With `repair`: also repairs that give something up: commits that are missing, rows that cannot be read.
  bool accept_loss = false;
  std::vector<std::string> devices;  // more directories to look for data files in
  std::function<void(const Finding&)> on_finding;
  std::function<void(const Finding&)> before_repair;  // each repair is said before it is done
  Disk* disk = nullptr;                               // not owned; null: the machine's own
};

struct StructureReport {
  bool beside_writer = false;
  std::string writer;  // what it says of itself
  Uuid store_uuid{};
  uint64_t commit = 0;  // that the answer is about
  uint64_t notes = 0, warnings = 0, errors = 0;
  uint64_t repaired = 0;  // findings
  // Errors that were not mended; found by a second check where anything was repaired.
  uint64_t errors_left = 0;
  bool index_checked = false;  // false: it could not be opened, and the counts below mean nothing
  uint64_t names = 0, objects = 0, inline_objects = 0;
  uint64_t capacity = 0, live = 0, free = 0, bad = 0;  // bytes
};

// A status only for what is no finding: no shelf there, a lock that another process holds (with `repair`), an I/O error
// of a repair.
absl::StatusOr<StructureReport> CheckStructure(const std::string& path, const StructureCheckOptions& options);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STRUCTURE_CHECK_H_
