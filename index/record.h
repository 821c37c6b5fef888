// What the index remembers of one object, and of one name. Plain structs; index/record_codec.h turns them into bytes.

#ifndef TENSORSHELF_INDEX_RECORD_H_
#define TENSORSHELF_INDEX_RECORD_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tensorshelf {

using Uuid = std::array<uint8_t, 16>;

inline constexpr uint64_t kUnitBytes = 4096;  // allocation unit
inline constexpr uint8_t kUnitLog2 = 12;
inline constexpr uint8_t kBlockLog2 = 16;       // default checksum block: 64 KiB
inline constexpr size_t kSumsInRecordMax = 64;  // more go to rows of their own
inline constexpr size_t kSumsPerRow = 2048;
inline constexpr size_t kNameBytesMax = 4096;
inline constexpr size_t kMetadataBytesMax = 65536;
inline constexpr size_t kDimensionsMax = 64;

// A run of units in one data file. The byte offset is first_unit * 4096.
struct Extent {
  uint32_t file_id = 0;
  uint32_t units = 0;
  uint64_t first_unit = 0;

  uint64_t offset() const { return first_unit * kUnitBytes; }
  uint64_t bytes() const { return uint64_t{units} * kUnitBytes; }
  uint64_t end_unit() const { return first_unit + units; }
  friend bool operator==(const Extent&, const Extent&) = default;
};

enum class ObjectKind : uint8_t { kTensor = 1, kBytes = 2 };
enum class Placement : uint8_t { kNone = 0, kExtents = 1, kInline = 2, kExternal = 3 };

// A part of a record that this build may not know. Bit 15 of the tag: a reader that does not know it must not read the
// object. Unknown ones are kept when a record is rewritten.
struct Tlv {
  uint16_t tag = 0;
  std::string value;
  friend bool operator==(const Tlv&, const Tlv&) = default;
};

inline constexpr uint16_t kTlvMetadata = 1;  // user metadata; store/ gives the bytes a meaning
inline constexpr uint16_t kTlvSums = 2;      // up to 64 block sums; decoded into ObjectRecord::sums
inline constexpr uint16_t kTlvDtypeName = 3;
inline constexpr uint16_t kTlvExternalKey = 4;
inline constexpr uint16_t kTlvCritical = 0x8000;

// One version of a tensor's bytes: layout and meaning in store/FORMAT.md, "Object record".
struct ObjectRecord {
  ObjectKind kind = ObjectKind::kTensor;
  Placement placement = Placement::kNone;
  uint8_t encoding = 0;
  uint16_t dtype = 0;  // store/dtype.h
  uint8_t block_log2 = kBlockLog2;
  uint8_t sum_algo = 1;     // 1 = low 64 bits of XXH3-128
  uint8_t stripe_log2 = 0;  // 0 = one column, not striped
  uint32_t incompat = 0;    // feature bits; any unknown one: counts as space, cannot be read
  uint64_t generation = 0;
  uint64_t logical_bytes = 0;
  uint64_t stored_bytes = 0;
  int64_t created_ns = 0;  // since the Unix epoch
  std::array<uint8_t, 16> fingerprint{};
  uint32_t place_seq = 0;
  Extent trailer;  // units 0 = none
  std::vector<std::vector<Extent>> columns;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> sums;  // from kTlvSums; empty when they lie in rows or there are none
  std::vector<Tlv> tlvs;       // all but kTlvSums, in order

  uint64_t block_bytes() const { return uint64_t{1} << block_log2; }
  uint64_t sums_count() const { return stored_bytes == 0 ? 0 : (stored_bytes + block_bytes() - 1) >> block_log2; }
  const std::string* FindTlv(uint16_t tag) const {
    for (const Tlv& tlv : tlvs) {
      if (tlv.tag == tag) return &tlv.value;
    }
    return nullptr;
  }
  friend bool operator==(const ObjectRecord&, const ObjectRecord&) = default;
};

// The value of a row of the `names` family.
struct NameRow {
  static constexpr uint8_t kInline = 1;  // flags bit 0: the record is in the `inline` family
  uint8_t flags = 0;
  uint64_t generation = 0;
  std::vector<Tlv> tlvs;
  friend bool operator==(const NameRow&, const NameRow&) = default;
};

// The value of a "file/" row of the `state` family: a data file that belongs to the store.
struct FileRow {
  uint32_t file_id = 0;
  Uuid device_uuid{};
  uint64_t size = 0;        // bytes
  uint64_t data_begin = 0;  // bytes
  uint64_t data_end = 0;    // bytes
  friend bool operator==(const FileRow&, const FileRow&) = default;
};

// "dev/" row: a directory on one disk.
struct DeviceRow {
  Uuid uuid{};
  uint32_t tier_id = 0;
  std::string tier_name;
  friend bool operator==(const DeviceRow&, const DeviceRow&) = default;
};

// "tune/" row: how a device is best driven, as measured when the shelf was made.
struct TuningRow {
  Uuid device_uuid{};
  uint32_t io_size = 0;      // bytes
  uint32_t queue_depth = 0;  // transfers in flight per worker
  uint32_t worker_count = 0;
  uint64_t read_bytes_per_s = 0, write_bytes_per_s = 0;  // measured with these settings
  friend bool operator==(const TuningRow&, const TuningRow&) = default;
};

// "super" row.
struct SuperRow {
  Uuid store_uuid{};
  uint64_t compat = 0, ro_compat = 0, incompat = 0;
  uint64_t epoch = 0;
  friend bool operator==(const SuperRow&, const SuperRow&) = default;
};

// "commit" row.
struct CommitRow {
  uint64_t commit = 0;
  int64_t time_ns = 0;
  friend bool operator==(const CommitRow&, const CommitRow&) = default;
};

// "count/inline" row.
struct InlineCountRow {
  uint64_t rows = 0;
  uint64_t bytes = 0;
  friend bool operator==(const InlineCountRow&, const InlineCountRow&) = default;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_RECORD_H_
