// Finds what belongs to a shelf on disk: STORE, the data files by their labels, their witness slots.

#ifndef TENSORSHELF_STORE_SHELF_FILES_H_
#define TENSORSHELF_STORE_SHELF_FILES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "index/record.h"
#include "store/device_set.h"
#include "store/label.h"
#include "store/store_file.h"
#include "store/witness_slot.h"

namespace tensorshelf {

inline constexpr char kStoreFileName[] = "STORE";
inline constexpr char kCreatingFileName[] = "CREATING";  // there while Create works; a leftover one is swept away
inline constexpr char kLockFileName[] = "LOCK";
inline constexpr char kIndexName[] = "index";
inline constexpr char kBallastName[] = "index.ballast";
inline constexpr char kFreemapName[] = "freemap";
inline constexpr char kCountersName[] = "counters";  // of the process that writes, while it does

std::string JoinPath(const std::string& directory, const std::string& name);
std::string DataFileName(uint32_t file_id);  // "00000001.tsd"

struct FoundFile {
  std::unique_ptr<DataFile> file;
  Label label;
  FeatureAccess access = FeatureAccess::kReadWrite;
  SlotsReading slots;
};

struct ShelfFiles {
  StoreFile store_file;
  std::vector<std::string> device_directories;  // existing ones; the shelf itself first
  std::vector<FoundFile> files;                 // by file_id
  // Named as a data file is, but its label or its length is damaged: a member, or what a crash left while the shelf
  // grew. The index knows (MatchFileRows).
  struct Damaged {
    uint32_t file_id = 0;  // by its name
    std::string path;
    absl::Status status;  // what is wrong with it
  };
  std::vector<Damaged> damaged;
  std::vector<std::string> notices;  // damaged label copies, damaged slots
};

struct FindOptions {
  std::vector<std::string> extra_directories;
  bool writable = false;
  bool skip_damaged = false;  // degraded opens: a data file whose label cannot be read counts as missing
};

// NotFound: no store there.
absl::StatusOr<StoreFile> ReadStoreFile(Disk& disk, const std::string& shelf);

// NotFound: no store there. DataLoss: a label that is foreign, under another file's name or there twice, each with its
// own message.
absl::StatusOr<ShelfFiles> FindShelfFiles(Disk& disk, const std::string& shelf, const FindOptions& options);

// Drops from `found.files` what `rows` does not name (returned: their paths) and adds an empty DataFile for each row
// that has no file. DataLoss when a label and its row disagree, or a row's file has no valid label; kDeviceMissing,
// naming the devices, unless `degraded`.
absl::StatusOr<std::vector<std::string>> MatchFileRows(ShelfFiles& found, const std::vector<FileRow>& rows,
                                                       bool degraded);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_SHELF_FILES_H_
