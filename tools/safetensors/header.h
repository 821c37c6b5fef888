// The header of a safetensors file, read as hostile input and written as the reference writer does.
//
//   u64 little-endian N | N bytes of JSON: name -> {dtype, shape, data_offsets}, optional "__metadata__" | data
//
// Rules and their names: tools/safetensors/rules.h.

#ifndef TENSORSHELF_TOOLS_SAFETENSORS_HEADER_H_
#define TENSORSHELF_TOOLS_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "tools/safetensors/file_dtype.h"

namespace tensorshelf::safetensors {

inline constexpr uint64_t kLengthBytes = 8;
inline constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the JSON alone, padding included
inline constexpr size_t kNestingMax = 128;
inline constexpr char kMetadataKey[] = "__metadata__";

struct TensorEntry {
  std::string name;
  const FileDtype* dtype = nullptr;
  std::vector<uint64_t> shape;  // in elements, also for types smaller than a byte
  uint64_t begin = 0, end = 0;  // bytes from the start of the data

  uint64_t bytes() const { return end - begin; }
};

using FileMetadata = std::vector<std::pair<std::string, std::string>>;  // in the order of the file

struct Header {
  std::vector<TensorEntry> tensors;  // in the order of their data; they cover it without hole or overlap
  std::optional<FileMetadata> metadata;
  uint64_t data_offset = 0;  // of the data in the file, bytes
};

// The length of the JSON, from the first min(8, file_bytes) bytes of the file. R1, R2, R3.
absl::StatusOr<uint64_t> CheckHeaderLength(const std::string& first_bytes, uint64_t file_bytes);
// `json` without the length, `data_bytes` what follows it in the file. R4 .. R21, L1 .. L5.
absl::StatusOr<Header> ParseHeader(const std::string& json, uint64_t data_bytes);
// Both, from a file; reads the length and the header only, and allocates nothing before R3 has been checked against the
// size that the open file reports. Messages name the path.
absl::StatusOr<Header> ReadHeader(File& file);

// Entries as parsed, in the order of the text; the second half of ParseHeader checks and sorts them.
struct ParsedEntries {
  std::vector<TensorEntry> tensors;
  std::optional<FileMetadata> metadata;
};
absl::StatusOr<ParsedEntries> ParseEntries(const std::string& json);                // R4 .. R12, L3 .. L5
absl::Status CheckEntries(std::vector<TensorEntry>& tensors, uint64_t data_bytes);  // L1, L2, R13 .. R21; sorts

// Bytes of a tensor: the product of the shape from the left, times the bits. R18, R19.
absl::StatusOr<uint64_t> TensorBytes(const std::string& name, const FileDtype& dtype,
                                     const std::vector<uint64_t>& shape);

// Sorts `tensors` as the reference writer does, gives them their offsets, and returns length and JSON, padded with
// spaces to a multiple of 8. InvalidArgument: a tensor named __metadata__, a name twice, R2, R18, R19.
absl::StatusOr<std::string> LayOutHeader(std::vector<TensorEntry>& tensors,
                                         const std::optional<FileMetadata>& metadata);

// A JSON string with quotes, escaped as the reference writer does.
void AppendJsonString(const std::string& text, std::string* to);
// The map alone, `{"k":"v"}`, as LayOutHeader writes it; and back. R8 when it is anything else.
std::string FormatFileMetadata(const FileMetadata& metadata);
absl::StatusOr<FileMetadata> ParseFileMetadata(const std::string& json);

}  // namespace tensorshelf::safetensors

#endif  // TENSORSHELF_TOOLS_SAFETENSORS_HEADER_H_
