// How the index uses RocksDB: families, keys of the `state` family, options.

#ifndef TENSORSHELF_INDEX_ROCKSDB_OPTIONS_H_
#define TENSORSHELF_INDEX_ROCKSDB_OPTIONS_H_

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "index/index.h"
#include "index/rocksdb_file_system.h"

namespace tensorshelf {

// Order of the handles that an open returns. RocksDB insists on "default", which stays empty.
enum class Family : size_t { kDefault = 0, kNames, kObjects, kSums, kInline, kState };
inline constexpr size_t kFamilyCount = 6;
inline constexpr std::array<const char*, kFamilyCount> kFamilyNames = {"default", "names",  "objects",
                                                                       "sums",    "inline", "state"};

inline Family FamilyOf(IndexFamily family) {
  static_assert(static_cast<size_t>(IndexFamily::kNames) + 1 == static_cast<size_t>(Family::kNames));
  static_assert(static_cast<size_t>(IndexFamily::kState) + 1 == static_cast<size_t>(Family::kState));
  return static_cast<Family>(static_cast<size_t>(family) + 1);
}

// Keys of the `state` family: a prefix, then big-endian numbers or a uuid.
inline constexpr char kSuperKey[] = "super";
inline constexpr char kCommitKey[] = "commit";
inline constexpr char kInlineCountKey[] = "count/inline";
inline constexpr char kFilePrefix[] = "file/";
inline constexpr char kDevicePrefix[] = "dev/";
inline constexpr char kTuningPrefix[] = "tune/";
inline constexpr char kFsyncPrefix[] = "fsync/";
inline constexpr char kBadPrefix[] = "bad/";
std::string FileKey(uint32_t file_id);
std::string DeviceKey(const Uuid& uuid);
std::string TuningKey(const Uuid& uuid);
std::string FsyncKey(uint32_t file_id);
std::string BadKey(uint32_t file_id, uint64_t first_unit);

// The first key behind all that begin with `prefix`; empty: there is none.
std::string AfterPrefix(std::string prefix);

inline rocksdb::Slice SliceOf(std::span<const std::byte> bytes) {
  return rocksdb::Slice(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}
inline std::span<const std::byte> BytesOf(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span(slice.data(), slice.size()));
}

// What a database needs around it, for as long as it is open.
struct RocksDbSurroundings {
  explicit RocksDbSurroundings(const IndexOptions& options);

  std::shared_ptr<ObservedFileSystem> file_system;
  std::unique_ptr<rocksdb::Env> env;
  std::shared_ptr<rocksdb::Cache> block_cache;
  std::shared_ptr<rocksdb::Logger> silence;  // else RocksDB makes a LOG file, also in a read-only open
};

rocksdb::DBOptions DatabaseOptions(const IndexOptions& options, const RocksDbSurroundings& surroundings);
std::vector<rocksdb::ColumnFamilyDescriptor> Families(const IndexOptions& options,
                                                      const RocksDbSurroundings& surroundings);

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_OPTIONS_H_
