// The header of a .npy file: versions 1 to 3, C order, little-endian elements.
//
//   "\x93NUMPY" | u8 major | u8 minor | u16 (version 1) or u32 length | {'descr': '<f4', 'fortran_order': False,
//   'shape': (3, 4), } padded with spaces and a line end to a multiple of 64 | data
//
// Object arrays are pickles: refused by name, as are strings, dates, records and big-endian elements.

#ifndef TENSORSHELF_TOOLS_NPY_NPY_HEADER_H_
#define TENSORSHELF_TOOLS_NPY_NPY_HEADER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf::npy {

inline constexpr uint64_t kHeaderBytesMax = uint64_t{1} << 20;

struct NpyHeader {
  uint16_t dtype = 0;  // store/dtype.h
  std::vector<uint64_t> shape;
  uint64_t data_offset = 0;  // bytes
  uint64_t data_bytes = 0;
};

// `first_bytes` is the start of the file, at least min(file_bytes, 12 + header). InvalidArgument names what is wrong:
// magic, version, length, the dictionary, an element type, Fortran order, or data that is shorter or longer than the
// shape says.
absl::StatusOr<NpyHeader> ParseNpyHeader(const std::string& first_bytes, uint64_t file_bytes);
// Messages name the path.
absl::StatusOr<NpyHeader> ReadNpyHeader(File& file);

// What numpy.save writes before the data. InvalidArgument: NumPy has no such element type.
absl::StatusOr<std::string> FormatNpyHeader(uint16_t dtype, const std::vector<uint64_t>& shape);

}  // namespace tensorshelf::npy

#endif  // TENSORSHELF_TOOLS_NPY_NPY_HEADER_H_
