#include "store/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace tensorshelf {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kShare = 4;  // a quarter
constexpr uint64_t kAutoMin = uint64_t{64} << 20;
constexpr uint64_t kAutoMax = uint64_t{64} << 30;
constexpr uint64_t kAutoStep = uint64_t{2} << 20;

// The number behind `key` in lines of "key value"; nullopt: no such file, line or number.
std::optional<uint64_t> ValueOf(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    uint64_t value = 0;
    if (words >> word && word == key && words >> value) return value;
  }
  return std::nullopt;
}

// A file of one number; nullopt also for "max".
std::optional<uint64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// "/a/b" for the line "0::/a/b" of /proc/self/cgroup, the one of version 2; "" at the root or without version 2.
std::string OwnCgroup(const std::string& proc) {
  std::ifstream file(proc + "/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::/", 0) == 0) return line.size() > 4 ? line.substr(3) : "";
  }
  return "";
}

uint64_t RoomIn(const std::string& cgroup) {
  const std::optional<uint64_t> limit = NumberIn(cgroup + "/memory.max");
  const std::optional<uint64_t> current = NumberIn(cgroup + "/memory.current");
  if (!limit.has_value() || !current.has_value()) return kNoLimit;
  const uint64_t reclaimable = ValueOf(cgroup + "/memory.stat", "inactive_file").value_or(0) +
                               ValueOf(cgroup + "/memory.stat", "active_file").value_or(0);
  const uint64_t taken = *current - std::min(*current, reclaimable);
  return *limit - std::min(*limit, taken);
}

}  // namespace

uint64_t AvailableMemoryBytes(const MemoryFiles& files) {
  uint64_t room = kNoLimit;
  if (const auto available_kib = ValueOf(files.proc + "/meminfo", "MemAvailable:")) room = *available_kib * 1024;
  // A container may see its own cgroup as the root, or a path of the host that is not mounted here: then only what is
  // there counts.
  for (std::string cgroup = OwnCgroup(files.proc);; cgroup.erase(cgroup.rfind('/'))) {
    room = std::min(room, RoomIn(files.cgroup + cgroup));
    if (cgroup.empty()) break;
  }
  return room == kNoLimit ? 0 : room;
}

uint64_t AutoMemoryBytes(const MemoryFiles& files) {
  const uint64_t bytes = std::min(AvailableMemoryBytes(files) / kShare, kAutoMax) / kAutoStep * kAutoStep;
  return bytes < kAutoMin ? 0 : bytes;
}

}  // namespace tensorshelf
