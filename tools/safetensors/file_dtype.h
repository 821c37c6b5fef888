// The element types of safetensors files, in the order of the reference implementation: its writer sorts tensors by
// this order, last first.

#ifndef TENSORSHELF_TOOLS_SAFETENSORS_FILE_DTYPE_H_
#define TENSORSHELF_TOOLS_SAFETENSORS_FILE_DTYPE_H_

#include <cstdint>
#include <span>
#include <string>

namespace tensorshelf::safetensors {

struct FileDtype {
  int rank = 0;           // position in the reference's list
  const char* name = "";  // as it stands in files; case matters
  uint32_t bits = 0;      // of one element
};

std::span<const FileDtype> AllFileDtypes();
// nullptr when there is none of that name. The pointers live as long as the program.
const FileDtype* FindFileDtype(const std::string& name);

}  // namespace tensorshelf::safetensors

#endif  // TENSORSHELF_TOOLS_SAFETENSORS_FILE_DTYPE_H_
