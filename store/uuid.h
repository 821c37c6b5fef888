// Random (version 4) uuids and their text form, 8-4-4-4-12 hexadecimal digits.

#ifndef TENSORSHELF_STORE_UUID_H_
#define TENSORSHELF_STORE_UUID_H_

#include <string>

#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

// From getrandom(2). Internal when the kernel has none to give.
absl::StatusOr<Uuid> RandomUuid();
std::string UuidText(const Uuid& uuid);
// Upper or lower case. InvalidArgument quotes the text.
absl::StatusOr<Uuid> ParseUuid(const std::string& text);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_UUID_H_
