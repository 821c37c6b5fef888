// ProbeIndex: what a recovery mode would make of the log, without recovering.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {

absl::StatusOr<IndexProbe> ProbeIndex(const std::string& path, ProbeMode mode, const IndexOptions& options) {
  // Constructed first, so that it goes after the database.
  const RocksDbSurroundings surroundings(options);
  IndexProbe probe;
  const rocksdb::IOStatus current =
      surroundings.file_system->FileExists(path + "/CURRENT", rocksdb::IOOptions(), nullptr);
  if (current.IsNotFound()) return probe;
  if (!current.ok()) return FromRocksDb(current, absl::StrCat("probing index ", path));
  probe.exists = true;

  rocksdb::DBOptions database = DatabaseOptions(options, surroundings);
  // Not as a secondary: that refuses the torn tail that a power cut may leave.
  database.wal_recovery_mode = mode == ProbeMode::kPointInTime ? rocksdb::WALRecoveryMode::kPointInTimeRecovery
                                                               : rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  // Rows of families that are not open are read and verified, but not kept: most of the cost of a replay.
  const auto all = Families(options, surroundings);
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {all[static_cast<size_t>(Family::kDefault)],
                                                                 all[static_cast<size_t>(Family::kState)]};
  RocksDbHandles handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(database, path, families, &handles.families, &db);
  handles.db.reset(db);
  if (!status.ok()) {
    absl::Status refused = FromRocksDb(status, absl::StrCat("probing index ", path));
    return absl::IsInvalidArgument(refused) ? absl::DataLossError(refused.message()) : refused;
  }

  const StateReader state(db, handles.families[1], nullptr);
  TS_ASSIGN_OR_RETURN(probe.super, state.Super());
  TS_ASSIGN_OR_RETURN(probe.commit, state.Commit());
  TS_ASSIGN_OR_RETURN(probe.files, state.Files());
  TS_ASSIGN_OR_RETURN(probe.devices, state.Devices());
  TS_ASSIGN_OR_RETURN(probe.fsync_slots, state.FsyncSlots());
  return probe;
}

}  // namespace tensorshelf
