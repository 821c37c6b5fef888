// A line that says how far long work is, redrawn in place; on a terminal only.

#ifndef TENSORSHELF_TOOLS_CLI_PROGRESS_H_
#define TENSORSHELF_TOOLS_CLI_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

// "1.5 GiB of 4.0 GiB (37 %), 1.3 GiB/s, 2 s left". Without a total: what is done and the rate.
std::string RenderProgress(uint64_t bytes_done, uint64_t bytes_total, double seconds);

// Confined to one thread.
class ProgressLine {
 public:
  ProgressLine(Console& console, std::string what);
  // Erases the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Draws at most ten times a second.
  void Update(uint64_t bytes_done, uint64_t bytes_total);
  // Erases the line before other text goes to the terminal; the next Update draws it again.
  void Clear();

 private:
  Console& console_;
  const std::string what_;
  const absl::Time started_;
  absl::Time drawn_at_ = absl::InfinitePast();
  bool drawn_ = false;
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_PROGRESS_H_
