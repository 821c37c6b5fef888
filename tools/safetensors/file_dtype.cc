#include "tools/safetensors/file_dtype.h"

namespace tensorshelf::safetensors {
namespace {

constexpr FileDtype kFileDtypes[] = {
    {0, "BOOL", 8},         {1, "F4", 4},      {2, "F6_E2M3", 6}, {3, "F6_E3M2", 6}, {4, "U8", 8},
    {5, "I8", 8},           {6, "F8_E5M2", 8}, {7, "F8_E4M3", 8}, {8, "F8_E8M0", 8}, {9, "F8_E4M3FNUZ", 8},
    {10, "F8_E5M2FNUZ", 8}, {11, "I16", 16},   {12, "U16", 16},   {13, "F16", 16},   {14, "BF16", 16},
    {15, "I32", 32},        {16, "U32", 32},   {17, "F32", 32},   {18, "C64", 64},   {19, "F64", 64},
    {20, "I64", 64},        {21, "U64", 64},
};

}  // namespace

std::span<const FileDtype> AllFileDtypes() { return kFileDtypes; }

const FileDtype* FindFileDtype(const std::string& name) {
  for (const FileDtype& dtype : kFileDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

}  // namespace tensorshelf::safetensors
