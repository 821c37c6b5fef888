// Backup and restore with RocksDB's BackupEngine. Both sync what they write.

#include <rocksdb/utilities/backup_engine.h>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

// Backups share their files, so an older one costs only what changed since.
constexpr uint32_t kBackupsKept = 2;

rocksdb::BackupEngineOptions BackupOptions(const std::string& directory, const RocksDbSurroundings& surroundings) {
  rocksdb::BackupEngineOptions options(directory);
  options.sync = true;
  options.share_table_files = true;
  options.share_files_with_checksum = true;
  options.info_log = surroundings.silence.get();
  return options;
}

}  // namespace

absl::Status RocksDbIndex::Backup(const std::string& destination) {
  TS_RETURN_IF_ERROR(CheckWritable());
  rocksdb::BackupEngine* opened = nullptr;
  rocksdb::Status status =
      rocksdb::BackupEngine::Open(surroundings_->env.get(), BackupOptions(destination, *surroundings_), &opened);
  const std::unique_ptr<rocksdb::BackupEngine> engine(opened);
  rocksdb::CreateBackupOptions options;
  options.flush_before_backup = true;
  if (status.ok()) status = engine->CreateNewBackup(options, handles_.db.get());
  if (status.ok()) status = engine->PurgeOldBackups(kBackupsKept);
  return Failed(status, absl::StrCat("backup to ", destination));
}

absl::Status RestoreIndex(const std::string& backup_directory, const std::string& index_path) {
  const RocksDbSurroundings surroundings{IndexOptions()};
  const std::string doing = absl::StrCat("restoring ", index_path, " from ", backup_directory);
  std::vector<std::string> children;
  const rocksdb::IOStatus listed =
      surroundings.file_system->GetChildren(index_path, rocksdb::IOOptions(), &children, nullptr);
  if (!listed.ok() && !listed.IsNotFound() && !listed.IsPathNotFound()) return FromRocksDb(listed, doing);
  if (!children.empty()) {
    return absl::AlreadyExistsError(absl::StrCat(doing, ": there are ", children.size(), " files in it already"));
  }
  rocksdb::BackupEngineReadOnly* opened = nullptr;
  rocksdb::Status status = rocksdb::BackupEngineReadOnly::Open(surroundings.env.get(),
                                                               BackupOptions(backup_directory, surroundings), &opened);
  const std::unique_ptr<rocksdb::BackupEngineReadOnly> engine(opened);
  if (status.ok()) status = engine->RestoreDBFromLatestBackup(index_path, index_path);
  return FromRocksDb(status, doing);
}

}  // namespace tensorshelf
