#include "index/rocksdb_options.h"

#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <utility>

#include "engine/foundation/little_endian.h"

namespace tensorshelf {
namespace {

// RocksDB's own choice makes shards of 512 KiB. The filter of a large file does not fit into one, and would be read
// again by every lookup.
constexpr int kBlockCacheShardBits = 3;

class SilentLogger : public rocksdb::Logger {
 public:
  SilentLogger() : Logger(rocksdb::InfoLogLevel::FATAL_LEVEL) {}
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

rocksdb::ColumnFamilyOptions FamilyOptions(Family family, const IndexOptions& options,
                                           const RocksDbSurroundings& surroundings) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = surroundings.block_cache;
  // Only names are asked for that are not there; a row of another family is looked up because one names it.
  if (family == Family::kNames) table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // Filters and table indexes count against the block cache, so that the index's memory has one bound.
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;

  rocksdb::ColumnFamilyOptions result;
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  result.compression = rocksdb::kNoCompression;  // sums and fingerprints do not compress, and the rest is small
  result.write_buffer_size = std::max<uint64_t>(options.memtable_bytes, 64 << 10);
  result.target_file_size_base = 32 << 20;
  result.max_bytes_for_level_base = 128 << 20;
  result.level_compaction_dynamic_level_bytes = true;
  result.paranoid_file_checks = false;  // reads each file again after writing it
  return result;
}

}  // namespace

std::string FileKey(uint32_t file_id) {
  std::string key = kFilePrefix;
  ByteWriter(&key).Big<uint32_t>(file_id);
  return key;
}

std::string DeviceKey(const Uuid& uuid) {
  std::string key = kDevicePrefix;
  ByteWriter(&key).Bytes(std::as_bytes(std::span(uuid)));
  return key;
}

std::string TuningKey(const Uuid& uuid) {
  std::string key = kTuningPrefix;
  ByteWriter(&key).Bytes(std::as_bytes(std::span(uuid)));
  return key;
}

std::string FsyncKey(uint32_t file_id) {
  std::string key = kFsyncPrefix;
  ByteWriter(&key).Big<uint32_t>(file_id);
  return key;
}

std::string BadKey(uint32_t file_id, uint64_t first_unit) {
  std::string key = kBadPrefix;
  ByteWriter writer(&key);
  writer.Big<uint32_t>(file_id);
  writer.Big<uint64_t>(first_unit);
  return key;
}

std::string AfterPrefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

RocksDbSurroundings::RocksDbSurroundings(const IndexOptions& options)
    : file_system(std::make_shared<ObservedFileSystem>(rocksdb::FileSystem::Default(), options.observer)),
      env(rocksdb::NewCompositeEnv(file_system)),
      block_cache(rocksdb::NewLRUCache(options.block_cache_bytes, kBlockCacheShardBits)),
      silence(std::make_shared<SilentLogger>()) {}

rocksdb::DBOptions DatabaseOptions(const IndexOptions& options, const RocksDbSurroundings& surroundings) {
  rocksdb::DBOptions result;
  result.env = surroundings.env.get();
  result.info_log = surroundings.silence;
  // With PointInTime the WAL counts up to its first bad record. Whether that lost an acknowledged commit, RocksDB
  // cannot tell; the store's witness slots and its two probes can.
  result.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  result.paranoid_checks = true;
  result.track_and_verify_wals_in_manifest = false;  // false alarms before RocksDB 7.10
  result.enable_pipelined_write = false;
  result.unordered_write = false;
  result.two_write_queues = false;
  result.allow_concurrent_memtable_write = false;  // there is one committer
  result.manual_wal_flush = false;
  result.max_bgerror_resume_count = 0;  // an error stays until the index is opened again
  // Both together bound the WAL: a full memtable is written to a file, and so is every family whose rows hold an old
  // log.
  result.db_write_buffer_size = options.memtable_bytes;
  result.max_total_wal_size = options.memtable_bytes;
  result.manifest_preallocation_size = 64 << 10;
  result.max_background_jobs = 2;
  // max_file_opening_threads stays as it is: with 1, a secondary misses rows of files that were just written.
  result.max_open_files = 512;
  result.skip_stats_update_on_db_open = true;  // would read a block of every file
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  result.keep_log_file_num = 2;
  return result;
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families(const IndexOptions& options,
                                                      const RocksDbSurroundings& surroundings) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (size_t i = 0; i < kFamilyCount; ++i) {
    families.emplace_back(kFamilyNames[i], FamilyOptions(static_cast<Family>(i), options, surroundings));
  }
  return families;
}

}  // namespace tensorshelf
