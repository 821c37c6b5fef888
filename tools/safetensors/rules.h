// What a safetensors file may not be. A broken rule is an InvalidArgument whose message begins with the rule's name
// and that carries the name for programs.
//
//   R1   shorter than 8 bytes              R12  data_offsets not exactly two numbers
//   R2   header over 100,000,000 bytes     R13  begin > end
//   R3   header passes the end of file     R14  first tensor does not begin at 0
//   R4   header not UTF-8                  R15  hole between tensors
//   R5   not one JSON value                R16  overlapping tensors
//   R6   nesting deeper than 128           R17  byte count is not what shape and dtype say
//   R7   top level not an object           R18  element or bit count overflows 64 bits
//   R8   bad __metadata__                  R19  bits are not a whole number of bytes
//   R9   dtype, shape or offsets missing   R20  bytes after the last tensor
//   R10  unknown dtype                     R21  file ends before the last tensor does
//   R11  not an unsigned 64-bit integer
//
// Stricter than the reference, which takes these or reports them as something else:
//   L1   same name twice, same range       L4   entry is an array
//   L2   same name twice, other range      L5   same field twice in an entry
//   L3   unknown field in an entry         (and `"__metadata__": null` is R8, a dtype that is no string R10)

#ifndef TENSORSHELF_TOOLS_SAFETENSORS_RULES_H_
#define TENSORSHELF_TOOLS_SAFETENSORS_RULES_H_

#include <string>

#include "absl/status/status.h"

namespace tensorshelf::safetensors {

absl::Status BrokenRule(const std::string& rule, const std::string& message);
// "R17", "L3"; empty when the status is not about a rule.
std::string RuleOf(const absl::Status& status);

}  // namespace tensorshelf::safetensors

#endif  // TENSORSHELF_TOOLS_SAFETENSORS_RULES_H_
