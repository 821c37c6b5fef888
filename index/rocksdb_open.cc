// Index::Open: the four ways to open the database. ProbeIndex is beside it in rocksdb_probe.cc.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

using Mode = Index::Mode;

std::string ParentOf(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  const size_t slash = end == std::string::npos ? end : path.rfind('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Makes the directory, and its name durable: RocksDB syncs what is in it, not the entry that leads to it.
absl::Status MakeIndexDirectory(const std::string& path, rocksdb::FileSystem& file_system) {
  const rocksdb::IOOptions io;
  rocksdb::IOStatus status = file_system.CreateDirIfMissing(path, io, nullptr);
  std::unique_ptr<rocksdb::FSDirectory> parent;
  if (status.ok()) status = file_system.NewDirectory(ParentOf(path), io, &parent, nullptr);
  if (status.ok()) status = parent->Fsync(io, nullptr);
  return FromRocksDb(status, absl::StrCat("index ", path, ": making its directory"));
}

absl::Status CheckExistence(const std::string& path, Mode mode, rocksdb::FileSystem& file_system) {
  const rocksdb::IOStatus status = file_system.FileExists(path + "/CURRENT", rocksdb::IOOptions(), nullptr);
  if (!status.ok() && !status.IsNotFound()) return FromRocksDb(status, absl::StrCat("index ", path));
  if (mode == Mode::kCreate && status.ok()) {
    return absl::AlreadyExistsError(absl::StrCat("there is an index at ", path));
  }
  if (mode != Mode::kCreate && !status.ok()) return absl::NotFoundError(absl::StrCat("there is no index at ", path));
  return absl::OkStatus();
}

absl::Status OpenError(const rocksdb::Status& status, const std::string& path, const ObservedFileSystem& file_system) {
  if (file_system.lock_refused()) {
    return absl::FailedPreconditionError(absl::StrCat("index ", path, " is locked: ", status.ToString()));
  }
  absl::Status converted = FromRocksDb(status, absl::StrCat("opening index ", path));
  // A database without our families is not one that we wrote.
  if (absl::IsInvalidArgument(converted)) return absl::DataLossError(converted.message());
  return converted;
}

// The name of the log with the lowest number; empty: there is none.
absl::StatusOr<std::string> OldestLog(rocksdb::FileSystem& file_system, const std::string& path) {
  std::vector<std::string> children;
  const rocksdb::IOStatus status = file_system.GetChildren(path, rocksdb::IOOptions(), &children, nullptr);
  if (!status.ok()) return FromRocksDb(status, absl::StrCat("index ", path, ": listing its files"));
  std::string oldest;
  for (const std::string& child : children) {
    if (!child.ends_with(".log")) continue;
    // By number: RocksDB pads them to six digits only.
    if (oldest.empty() || child.size() < oldest.size() || (child.size() == oldest.size() && child < oldest)) {
      oldest = child;
    }
  }
  return oldest;
}

rocksdb::Status OpenDatabase(const std::string& path, Mode mode, const IndexOptions& options,
                             const RocksDbSurroundings& surroundings, RocksDbHandles* handles) {
  rocksdb::DBOptions database = DatabaseOptions(options, surroundings);
  const auto families = Families(options, surroundings);
  rocksdb::DB* db = nullptr;
  rocksdb::Status status;
  switch (mode) {
    case Mode::kCreate:
      database.create_if_missing = true;
      database.create_missing_column_families = true;
      database.error_if_exists = true;
      status = rocksdb::DB::Open(database, path, families, &handles->families, &db);
      break;
    case Mode::kReadWrite:
      status = rocksdb::DB::Open(database, path, families, &handles->families, &db);
      break;
    case Mode::kReadOnly:
      status = rocksdb::DB::OpenForReadOnly(database, path, families, &handles->families, &db);
      break;
    case Mode::kBesideWriter:
      // Files stay open, so that the writer may delete them. The last path is where RocksDB would put a LOG, and it has
      // a logger already.
      database.max_open_files = -1;
      status = rocksdb::DB::OpenAsSecondary(database, path, path, families, &handles->families, &db);
      break;
  }
  handles->db.reset(db);
  return status;
}

}  // namespace

absl::Status FollowWriter(rocksdb::DB& secondary, rocksdb::FileSystem& file_system, const std::string& path) {
  // RocksDB reads the manifest, then the logs. Where the writer, between the two, puts the rows of a log into a file
  // and deletes the log, its rows are in neither; but the rows of the next log are there. So follow until the oldest
  // log before is still there after: then all rows were in the manifest's files or in a log.
  constexpr int kAttempts = 1000;
  rocksdb::Status followed;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto before = OldestLog(file_system, path);
    if (!before.ok()) return before.status();
    followed = secondary.TryCatchUpWithPrimary();
    const auto after = OldestLog(file_system, path);
    if (!after.ok()) return after.status();
    // An error may come from a file that was deleted between its being listed and its being opened.
    if (followed.ok() && *before == *after) return absl::OkStatus();
  }
  if (!followed.ok()) return FromRocksDb(followed, absl::StrCat("index ", path, ": following the writer"));
  return absl::UnavailableError(absl::StrCat("index ", path, ": the writer's files change too fast to follow"));
}

absl::StatusOr<std::unique_ptr<Index>> Index::Open(const std::string& path, Mode mode, const IndexOptions& options) {
  auto surroundings = std::make_unique<RocksDbSurroundings>(options);
  TS_RETURN_IF_ERROR(CheckExistence(path, mode, *surroundings->file_system));
  if (mode == Mode::kCreate) TS_RETURN_IF_ERROR(MakeIndexDirectory(path, *surroundings->file_system));
  RocksDbHandles handles;
  rocksdb::Status status;
  // Beside a writer, a file may be deleted between its being listed and its being opened.
  const int attempts = mode == Mode::kBesideWriter ? 50 : 1;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    status = OpenDatabase(path, mode, options, *surroundings, &handles);
    if (status.ok()) break;
  }
  if (!status.ok()) return OpenError(status, path, *surroundings->file_system);
  if (mode == Mode::kBesideWriter) {
    TS_RETURN_IF_ERROR(FollowWriter(*handles.db, *surroundings->file_system, path));
  }
  TS_ASSIGN_OR_RETURN(const CommitRow newest,
                      StateReader(handles.db.get(), handles.of(Family::kState), nullptr).Commit());
  return std::make_unique<RocksDbIndex>(path, mode, options, std::move(surroundings), std::move(handles), newest);
}

}  // namespace tensorshelf
