// tensorshelf info: the shelf as a whole.

#include <sys/resource.h>
#include <sys/vfs.h>

#include <map>

#include "engine/foundation/status_macros.h"
#include "store/store.h"
#include "tools/cli/listing.h"
#include "tools/cli/opening.h"
#include "tools/cli/report.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct InfoArguments : CommonOptions {
  bool count = false;
};

std::string FileSystemOf(const std::string& path) {
  static const std::map<uint64_t, const char*> kNames = {
      {0xef53, "ext4"},     {0x58465342, "xfs"},      {0x01021994, "tmpfs"}, {0x9123683e, "btrfs"},
      {0x6969, "nfs"},      {0x794c7630, "overlay"},  {0x2fc12fc1, "zfs"},   {0xf2f52010, "f2fs"},
      {0x65735546, "fuse"}, {0xca451a4e, "bcachefs"}, {0x00c36400, "ceph"},  {0x0bd00bd0, "lustre"},
      {0x01021997, "9p"}};
  struct statfs found {};
  if (path.empty() || statfs(path.c_str(), &found) != 0) return "";
  const auto name = kNames.find(static_cast<uint32_t>(found.f_type));
  return name == kNames.end() ? "" : name->second;
}

absl::StatusOr<ExitStatus> RunInfo(const InfoArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  InfoReport report{store->info(), {}, std::nullopt, std::nullopt};
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    report.page_lock_limit = limit.rlim_cur;
  for (const FileInfo& file : report.info.files) report.file_systems.push_back(FileSystemOf(file.path));
  if (arguments.count) {
    uint64_t names = 0;
    TS_RETURN_IF_ERROR(VisitNames(*store, {}, [&](const std::string&) { return ++names > 0; }));
    report.names = names;
  }
  console.out << (arguments.json ? Dump(InfoJson(report)) : RenderInfo(report, console));
  return ExitStatus::kClean;
}

}  // namespace

Verb AddInfo(CLI::App& app) {
  auto arguments = std::make_shared<InfoArguments>();
  CommandLine line(app, "info", "Show the shelf: its identity, data files, commit, and who writes to it.",
                   arguments.get());
  line.Flag("--count", &arguments->count, "count the names too (reads all of them)");
  return {line.command(), arguments, [arguments](Console& console) { return RunInfo(*arguments, console); }};
}

}  // namespace tensorshelf::cli
