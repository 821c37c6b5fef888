// tensorshelf compact: free space in one piece.

#include "store/compact.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct CompactArguments : CommonOptions {
  std::string rate;
  bool dry_run = false;
};

Json ShapeJson(const SpaceShape& shape) {
  return {{"fragmentation", shape.fragmentation},
          {"free", shape.free_bytes},
          {"largest_free", shape.largest_free},
          {"free_runs", shape.free_runs}};
}

Json CompactJson(const CompactReport& report, const StoreInfo& info, const CompactArguments& arguments,
                 double seconds) {
  Json json = Envelope("compact", info);
  json.update({{"dry_run", arguments.dry_run},
               {"objects_moved", report.objects_moved},
               {"bytes_moved", report.bytes_moved},
               {"skipped", report.objects_skipped},
               {"damaged", report.objects_damaged},
               {"damage", report.damage},
               {"seconds", seconds}});
  json["before"] = ShapeJson(report.before);
  json["after"] = ShapeJson(report.after);
  return json;
}

std::string RenderShape(const SpaceShape& shape) {
  return absl::StrCat("fragmentation ", absl::StrFormat("%.3f", shape.fragmentation), ", ",
                      FormatBytes(shape.free_bytes), " free in ", FormatCount(shape.free_runs, "run"), ", the largest ",
                      FormatBytes(shape.largest_free), "\n");
}

std::string RenderCompact(const CompactReport& report, bool dry_run, const Console& console) {
  std::string text = absl::StrCat("before: ", RenderShape(report.before),
                                  dry_run ? "would be: " : "after: ", RenderShape(report.after));
  absl::StrAppend(&text, dry_run ? "would move " : "moved ", FormatCount(report.objects_moved, "object"), ", ",
                  FormatBytes(report.bytes_moved), "\n");
  if (report.objects_skipped > 0) {
    absl::StrAppend(&text, FormatCount(report.objects_skipped, "object"), " need a newer version and stay\n");
  }
  for (const std::string& damage : report.damage) {
    absl::StrAppend(&text, Painted(console, Colour::kRed, "damaged"), ", stays where it is: ", PrintableMessage(damage),
                    "\n");
  }
  const uint64_t unlisted = report.objects_damaged - report.damage.size();
  if (unlisted > 0) absl::StrAppend(&text, "and ", FormatCount(unlisted, "more damaged object"), "\n");
  return text;
}

absl::StatusOr<ExitStatus> RunCompact(const CompactArguments& arguments, Console& console) {
  CompactOptions options;
  if (!arguments.rate.empty()) {
    TS_ASSIGN_OR_RETURN(options.rate_bytes_per_s, ParseBytes(arguments.rate));
    if (options.rate_bytes_per_s == 0) return UsageError("a rate of 0 would never end");
  }
  options.dry_run = arguments.dry_run;
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, arguments.dry_run ? OpenForLooking(arguments.shelf, console)
                                                                            : OpenForWriting(arguments.shelf, console));
  ProgressLine line(console, "compact");
  if (console.progress && !arguments.dry_run) {
    options.progress = [&](const CompactReport& so_far) { line.Update(so_far.bytes_moved, 0); };
  }
  const absl::Time started = absl::Now();
  TS_ASSIGN_OR_RETURN(const CompactReport report, store->Compact(options));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - started);
  line.Clear();
  console.out << (arguments.json ? Dump(CompactJson(report, store->info(), arguments, seconds))
                                 : RenderCompact(report, arguments.dry_run, console));
  TS_RETURN_IF_ERROR(store->Close());
  return report.objects_damaged == 0 ? ExitStatus::kClean : ExitStatus::kDamage;
}

}  // namespace

Verb AddCompact(CLI::App& app) {
  auto arguments = std::make_shared<CompactArguments>();
  CommandLine line(
      app, "compact",
      "Move objects so that the free space of each file lies in one piece: large ones down, small ones up. "
      "Every byte is compared with its sum on the way; a damaged object stays where it is (exit status 4). "
      "May be cut off at any time: each object is at its old place or at its new one. For a shelf that "
      "nobody has open; a program that has it open calls store.compact().",
      arguments.get());
  line.Text("--rate", &arguments->rate, "copy at most so many bytes a second, such as 200MB");
  line.Flag("--dry-run", &arguments->dry_run, "say what would come of it, beside a writer too, and change nothing");
  return {line.command(), arguments, [arguments](Console& console) { return RunCompact(*arguments, console); }};
}

}  // namespace tensorshelf::cli
