// Two steps of a copy at once: while one window is emptied, the next is filled.

#ifndef TENSORSHELF_TOOLS_CLI_PIPELINE_H_
#define TENSORSHELF_TOOLS_CLI_PIPELINE_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace tensorshelf::cli {

inline constexpr size_t kSlotCount = 2;

// Calls fill(i, slot) then drain(i, slot) for each i < count, in order, with slot = i mod 2; fill(i + 1) runs on a
// thread of its own beside drain(i). Ends at the first error; nothing runs any more when it returns.
absl::Status RunPipeline(size_t count, const std::function<absl::Status(size_t step, size_t slot)>& fill,
                         const std::function<absl::Status(size_t step, size_t slot)>& drain);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_PIPELINE_H_
