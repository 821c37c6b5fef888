// The element types that the store knows, under numbers of its own. They equal torch's ScalarType numbers of the same
// types and never change; a number that this build does not know is kept, listed and readable as bytes.

#ifndef TENSORSHELF_STORE_DTYPE_H_
#define TENSORSHELF_STORE_DTYPE_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace tensorshelf {

struct Dtype {
  uint16_t number = 0;
  const char* name = "";  // torch's, without "torch."
  uint32_t item_bytes = 0;
  const char* safetensors = "";  // "" when that format has none
};

// All of them, by number.
std::span<const Dtype> AllDtypes();
// nullptr when unknown. The pointers live as long as the program.
const Dtype* FindDtype(uint16_t number);
const Dtype* FindDtypeByName(const std::string& name);
const Dtype* FindDtypeBySafetensors(const std::string& name);

// The bytes of a dense tensor: 1 item for no dimensions, 0 when any dimension is 0. InvalidArgument: unknown dtype,
// more than 64 dimensions, a dimension or a product beyond 2^63 - 1 (also where a dimension of 0 would hide it).
absl::StatusOr<uint64_t> BytesOfShape(uint16_t dtype, std::span<const uint64_t> shape);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_DTYPE_H_
