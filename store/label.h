// The label of a data file: whose it is, how large, where its data lies. Three copies: A at 0, B at 4 KiB, C at
// data_end. Bytes: store/FORMAT.md, "Data file". A label speaks only of its own file; which files belong to the store
// is in the index.

#ifndef TENSORSHELF_STORE_LABEL_H_
#define TENSORSHELF_STORE_LABEL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "index/record.h"
#include "store/features.h"

namespace tensorshelf {

inline constexpr size_t kLabelBytes = 4096;
inline constexpr uint32_t kLabelVersion = 1;
inline constexpr uint64_t kLabelAOffset = 0;
inline constexpr uint64_t kLabelBOffset = 4096;
inline constexpr uint64_t kSlotsOffset = uint64_t{64} << 10;
inline constexpr uint64_t kDataBegin = uint64_t{1} << 20;      // bytes before the data of a new file
inline constexpr uint64_t kDataTailBytes = uint64_t{1} << 20;  // bytes from data_end to the end of the file
inline constexpr uint64_t kFileBytesMax = uint64_t{8} << 40;
inline constexpr size_t kTierNameBytesMax = 64;

enum class LabelState : uint8_t { kJoining = 1, kActive = 2, kDraining = 3 };

struct Label {
  uint32_t file_id = 0;
  uint64_t label_seq = 0;  // rises with every rewrite
  Uuid store_uuid{};
  Uuid device_uuid{};
  uint64_t size = 0;        // of the file, bytes
  uint64_t data_begin = 0;  // bytes
  uint64_t data_end = 0;    // bytes; label C lies here
  uint64_t compat = 0, ro_compat = 0, incompat = 0;
  uint32_t tier_id = 0;
  LabelState state = LabelState::kJoining;
  uint64_t created_ns = 0;  // since the Unix epoch
  std::string tier_name;    // at most 64 bytes, no NUL

  friend bool operator==(const Label&, const Label&) = default;
};

// InvalidArgument for what a decoder would refuse.
absl::Status CheckLabel(const Label& label);
// The label must pass CheckLabel; aborts otherwise.
void EncodeLabel(const Label& label, std::span<std::byte, kLabelBytes> to);
// DataLoss naming the field (magic, version, hash, each bound) and its value. Feature words are not judged here.
absl::StatusOr<Label> DecodeLabel(std::span<const std::byte> bytes);

// A, sync, then B and C, sync: at any crash one whole copy is durable. An error leaves at least the older label
// readable.
absl::Status WriteLabels(File& file, const Label& label);

struct LabelReading {
  Label label;
  FeatureAccess access = FeatureAccess::kReadWrite;
  // One line for each copy that is not the label: "label B at 4096: hash ...". Rewrite the label to mend them.
  std::vector<std::string> damaged;
};

// The valid copy with the highest label_seq. DataLoss: no copy is valid (tells why for each), or the file is not as
// long as its label says (truncated or grown). FailedPrecondition: unknown incompat features. Messages name the path.
absl::StatusOr<LabelReading> ReadLabel(File& file);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LABEL_H_
