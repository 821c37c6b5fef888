// Where a verb writes, what it may assume of the other end, and how it ends.

#ifndef TENSORSHELF_TOOLS_CLI_CONSOLE_H_
#define TENSORSHELF_TOOLS_CLI_CONSOLE_H_

#include <istream>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace tensorshelf::cli {

struct Console {
  std::ostream& out;                  // results
  std::ostream& err;                  // errors, notes, progress
  bool progress = false;              // err is a terminal
  bool colour = false;                // out is a terminal and NO_COLOR is not set
  bool terminal = false;              // out is a terminal
  std::istream* in = nullptr;         // a terminal where a person can be asked; null: nobody can
  size_t columns = 80;                // of the terminal
  size_t (*ask_columns)() = nullptr;  // asks it again, for what is redrawn; null: columns stays
};

// As e2fsck's. kRepaired and kDamage may come together, as 5.
enum class ExitStatus : int {
  kClean = 0,
  kRepaired = 1,     // damage found, and repaired
  kDamage = 4,       // damage found, and left
  kOperational = 8,  // could not be done: not there, locked, full, refused
  kUsage = 16,       // the command line is wrong
};

inline ExitStatus operator|(ExitStatus a, ExitStatus b) {
  return static_cast<ExitStatus>(static_cast<int>(a) | static_cast<int>(b));
}

// Asks a question that is answered with y or yes; false for any other answer, and where nobody can be asked.
bool Confirm(Console& console, const std::string& question);

// A command line that CLI11 took and that is wrong all the same: an InvalidArgument that ends with kUsage.
inline constexpr char kUsagePayload[] = "tensorshelf/usage";
inline absl::Status UsageError(const std::string& message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_CONSOLE_H_
