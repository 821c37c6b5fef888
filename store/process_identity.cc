#include "store/process_identity.h"

#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tensorshelf {

std::string HolderText() {
  std::array<char, 256> host{};
  const bool named = gethostname(host.data(), host.size() - 1) == 0;
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return absl::StrCat("pid=", getpid(), " host=", named ? host.data() : "unknown",
                      " boot=", boot.empty() ? "unknown" : boot,
                      " since=", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()));
}

ProcessStart StartOfThisProcess() {
  ProcessStart start;
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return start;
  // "4711 (name) S ...": the name may hold spaces and parentheses, so it ends with the last one.
  const size_t open = line.find('('), close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return start;
  start.program = line.substr(open + 1, close - open - 1);
  std::istringstream fields(line.substr(close + 1));
  std::string field;
  for (int number = 3; number <= 22 && fields >> field; ++number) {
    if (number == 22 && !absl::SimpleAtoi(field, &start.ticks)) start.ticks = 0;
  }
  return start;
}

}  // namespace tensorshelf
