#include "store/label.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

constexpr char kMagic[] = "TSHLABEL";
constexpr size_t kTierNameAt = 120;
constexpr size_t kHashAt = kLabelBytes - sizeof(uint64_t);

// Aligned memory, so that the transfer takes the same direct path as the data's.
struct alignas(kLabelBytes) LabelBlock {
  std::array<std::byte, kLabelBytes> bytes{};
};

std::string PrintableMagic(std::span<const std::byte> bytes) {
  return EscapeForTerminal(std::string(reinterpret_cast<const char*>(bytes.data()), 8));
}

// What is wrong with the bounds, "" when nothing is. Every comparison holds for any 64-bit numbers.
std::string BoundsProblem(const Label& label) {
  if (label.size > kFileBytesMax) return absl::StrCat("size ", label.size, " is over ", kFileBytesMax);
  if (label.size % kUnitBytes != 0) return absl::StrCat("size ", label.size, " is no multiple of ", kUnitBytes);
  if (label.data_begin % kUnitBytes != 0) {
    return absl::StrCat("data_begin ", label.data_begin, " is no multiple of ", kUnitBytes);
  }
  if (label.data_end % kUnitBytes != 0) {
    return absl::StrCat("data_end ", label.data_end, " is no multiple of ", kUnitBytes);
  }
  if (label.data_begin < kDataBegin) {
    return absl::StrCat("data_begin ", label.data_begin, " is below ", kDataBegin, ", inside labels and slots");
  }
  if (label.data_end <= label.data_begin) {
    return absl::StrCat("data_end ", label.data_end, " is not above data_begin ", label.data_begin);
  }
  if (label.data_end > label.size || label.size - label.data_end != kDataTailBytes) {
    return absl::StrCat("data_end ", label.data_end, " is not ", kDataTailBytes, " below size ", label.size);
  }
  return "";
}

std::string Problem(const Label& label) {
  std::string bounds = BoundsProblem(label);
  if (!bounds.empty()) return bounds;
  if (label.state < LabelState::kJoining || label.state > LabelState::kDraining) {
    return absl::StrCat("state ", static_cast<int>(label.state), " is none of 1 to 3");
  }
  if (label.tier_name.size() > kTierNameBytesMax) {
    return absl::StrCat("tier_name has ", label.tier_name.size(), " bytes, more than ", kTierNameBytesMax);
  }
  if (label.tier_name.find('\0') != std::string::npos) return "tier_name contains NUL";
  return "";
}

struct Copy {
  std::string what;
  absl::StatusOr<Label> label;
};

Copy ReadCopy(File& file, const char* letter, uint64_t offset) {
  LabelBlock block;
  const std::string what = absl::StrCat("label ", letter, " at ", offset);
  const absl::Status status = ReadExactly(file, offset, block.bytes);
  if (!status.ok()) return {what, status};
  return {what, DecodeLabel(block.bytes)};
}

std::string Line(const Copy& copy) { return absl::StrCat(copy.what, ": ", std::string(copy.label.status().message())); }

}  // namespace

absl::Status CheckLabel(const Label& label) {
  const std::string problem = Problem(label);
  return problem.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat("label: ", problem));
}

void EncodeLabel(const Label& label, std::span<std::byte, kLabelBytes> to) {
  TS_CHECK(Problem(label).empty());
  std::string bytes;
  bytes.reserve(kLabelBytes);
  ByteWriter writer(&bytes);
  bytes.append(kMagic, 8);
  writer.Little(kLabelVersion);
  writer.Little(label.file_id);
  writer.Little(label.label_seq);
  writer.Bytes(std::as_bytes(std::span(label.store_uuid)));
  writer.Bytes(std::as_bytes(std::span(label.device_uuid)));
  writer.Little(label.size);
  writer.Little(label.data_begin);
  writer.Little(label.data_end);
  writer.Little(label.compat);
  writer.Little(label.ro_compat);
  writer.Little(label.incompat);
  writer.Little(label.tier_id);
  writer.Little(static_cast<uint8_t>(label.state));
  writer.Little(kUnitLog2);
  writer.Zeros(2);
  writer.Little(label.created_ns);
  TS_CHECK(bytes.size() == kTierNameAt);
  bytes += label.tier_name;
  bytes.resize(kHashAt, '\0');
  writer.Little(Hash64(BytesOf(bytes)));
  std::ranges::copy(BytesOf(bytes), to.begin());
}

absl::StatusOr<Label> DecodeLabel(std::span<const std::byte> bytes) {
  if (bytes.size() < kLabelBytes) {
    return absl::DataLossError(absl::StrCat("only ", bytes.size(), " of ", kLabelBytes, " bytes"));
  }
  const std::byte* at = bytes.data();
  if (!std::ranges::equal(bytes.first(8), std::as_bytes(std::span(kMagic, 8)))) {
    return absl::DataLossError(absl::StrCat("magic is \"", PrintableMagic(bytes), "\", not \"", kMagic, "\""));
  }
  const uint32_t version = LoadLittle<uint32_t>(at + 8);
  if (version != kLabelVersion) {
    return absl::DataLossError(absl::StrCat("version is ", version, ", this build reads ", kLabelVersion));
  }
  const uint64_t stored = LoadLittle<uint64_t>(at + kHashAt);
  const uint64_t computed = Hash64(bytes.first(kHashAt));
  if (stored != computed) {
    return absl::DataLossError(absl::StrCat("hash is ", absl::Hex(stored), ", the bytes have ", absl::Hex(computed)));
  }
  Label label;
  label.file_id = LoadLittle<uint32_t>(at + 12);
  label.label_seq = LoadLittle<uint64_t>(at + 16);
  std::memcpy(label.store_uuid.data(), at + 24, 16);
  std::memcpy(label.device_uuid.data(), at + 40, 16);
  label.size = LoadLittle<uint64_t>(at + 56);
  label.data_begin = LoadLittle<uint64_t>(at + 64);
  label.data_end = LoadLittle<uint64_t>(at + 72);
  label.compat = LoadLittle<uint64_t>(at + 80);
  label.ro_compat = LoadLittle<uint64_t>(at + 88);
  label.incompat = LoadLittle<uint64_t>(at + 96);
  label.tier_id = LoadLittle<uint32_t>(at + 104);
  label.state = static_cast<LabelState>(LoadLittle<uint8_t>(at + 108));
  const uint8_t unit_log2 = LoadLittle<uint8_t>(at + 109);
  label.created_ns = LoadLittle<uint64_t>(at + 112);
  const char* tier_name = reinterpret_cast<const char*>(at + kTierNameAt);
  label.tier_name.assign(tier_name, strnlen(tier_name, kTierNameBytesMax));
  if (unit_log2 != kUnitLog2) {
    return absl::DataLossError(absl::StrCat("unit_log2 is ", unit_log2, ", not ", kUnitLog2));
  }
  const std::string problem = Problem(label);
  if (!problem.empty()) return absl::DataLossError(problem);
  return label;
}

absl::Status WriteLabels(File& file, const Label& label) {
  TS_RETURN_IF_ERROR(Annotate(CheckLabel(label), file.path()));
  LabelBlock block;
  EncodeLabel(label, block.bytes);
  TS_RETURN_IF_ERROR(WriteExactly(file, kLabelAOffset, block.bytes));
  TS_RETURN_IF_ERROR(file.Sync());
  TS_RETURN_IF_ERROR(WriteExactly(file, kLabelBOffset, block.bytes));
  TS_RETURN_IF_ERROR(WriteExactly(file, label.data_end, block.bytes));
  return file.Sync();
}

absl::StatusOr<LabelReading> ReadLabel(File& file) {
  TS_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  std::vector<Copy> copies = {ReadCopy(file, "A", kLabelAOffset), ReadCopy(file, "B", kLabelBOffset)};
  // Label C lies at data_end, which only a label knows; without one it lies a fixed length before the end of the file.
  std::optional<uint64_t> c_offset;
  for (const Copy& copy : copies) {
    if (!c_offset && copy.label.ok()) c_offset = copy.label->data_end;
  }
  if (!c_offset && size > kDataBegin + kDataTailBytes) c_offset = (size - kDataTailBytes) / kUnitBytes * kUnitBytes;
  if (c_offset) copies.push_back(ReadCopy(file, "C", *c_offset));

  const Label* winner = nullptr;
  for (const Copy& copy : copies) {
    if (copy.label.ok() && (winner == nullptr || copy.label->label_seq > winner->label_seq)) winner = &*copy.label;
  }
  if (winner == nullptr) {
    return absl::DataLossError(absl::StrCat(
        file.path(), " has no valid label: ", absl::StrJoin(copies, "; ", [](std::string* out, const Copy& copy) {
          out->append(Line(copy));
        })));
  }
  LabelReading reading;
  reading.label = *winner;
  for (const Copy& copy : copies) {
    if (!copy.label.ok()) {
      reading.damaged.push_back(Line(copy));
    } else if (*copy.label != *winner) {
      reading.damaged.push_back(absl::StrCat(copy.what, ": label_seq ", copy.label->label_seq, " is not the label, ",
                                             winner->label_seq, " is"));
    }
  }
  TS_ASSIGN_OR_RETURN(reading.access, CheckFeatures(file.path(), winner->ro_compat, winner->incompat));
  if (size != winner->size) {
    return absl::DataLossError(absl::StrCat(file.path(), size < winner->size ? " was truncated" : " has grown",
                                            ": it has ", size, " bytes, its label says ", winner->size));
  }
  return reading;
}

}  // namespace tensorshelf
