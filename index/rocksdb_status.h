// RocksDB's statuses as ours. They never leave index/.

#ifndef TENSORSHELF_INDEX_ROCKSDB_STATUS_H_
#define TENSORSHELF_INDEX_ROCKSDB_STATUS_H_

#include <rocksdb/io_status.h>
#include <rocksdb/status.h>

#include <string>

#include "absl/status/status.h"

namespace tensorshelf {

// Corruption is DataLoss, "no space" is ResourceExhausted, other I/O errors are Internal (a missing path: NotFound).
absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& context);

// How an observer's refusal looks to RocksDB: an I/O error, "no space" for ResourceExhausted.
rocksdb::IOStatus ToRocksDb(const absl::Status& status);

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_STATUS_H_
