// tensorshelf fsck: is the shelf sound, and what can be mended.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "store/structure_check.h"
#include "store/verify.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/report.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

constexpr char kHelp[] =
    "Check the structure of the shelf: STORE, labels, witness slots, the index against what the data files witness, "
    "every record, the checksums' rows, overlaps, the accounting of space, files that nobody knows. Reads no tensor "
    "unless --deep. Without --repair not one byte is written.\n"
    "Exit status: 0 sound (warnings are), 1 everything was mended, 4 errors are left, 5 some of them.";

struct FsckArguments : CommonOptions {
  bool deep = false;
  bool repair = false;
  bool accept_loss = false;
  std::vector<std::string> devices;
  std::string rate;
};

const char* LevelText(Finding::Level level) {
  switch (level) {
    case Finding::Level::kNote:
      return "note";
    case Finding::Level::kWarning:
      return "warning";
    case Finding::Level::kError:
      return "error";
  }
  return "";
}

std::string RenderFinding(const Finding& finding, const Console& console) {
  const Colour colour = finding.level == Finding::Level::kError     ? Colour::kRed
                        : finding.level == Finding::Level::kWarning ? Colour::kYellow
                                                                    : Colour::kDim;
  std::string text = absl::StrCat(Painted(console, colour, LevelText(finding.level)), "  ", finding.code, ": ");
  // Many messages begin with the file themselves.
  if (!finding.file.empty() && finding.message.find(finding.file) == std::string::npos) {
    absl::StrAppend(&text, EscapeForTerminal(finding.file));
    if (finding.offset.has_value()) absl::StrAppend(&text, " at offset ", *finding.offset);
    text += ": ";
  }
  absl::StrAppend(&text, PrintableMessage(finding.message), "\n");
  if (!finding.repair.empty()) {
    absl::StrAppend(&text, "         --repair", finding.repair_loses ? " --accept-loss" : "", " would ",
                    PrintableMessage(finding.repair), "\n");
  }
  return text;
}

Json FindingJson(const Finding& finding) {
  Json json = {{"level", LevelText(finding.level)}, {"code", finding.code}, {"message", finding.message}};
  json["file"] = finding.file.empty() ? Json(nullptr) : Json(finding.file);
  json["offset"] = finding.offset.has_value() ? Json(*finding.offset) : Json(nullptr);
  json["name"] = finding.name.empty() ? Json(nullptr) : Json(finding.name);
  json["generation"] = finding.generation == 0 ? Json(nullptr) : Json(finding.generation);
  json["repair"] = finding.repair.empty() ? Json(nullptr) : Json(finding.repair);
  json["repair_loses"] = finding.repair_loses;
  return json;
}

StoreInfo InfoOf(const FsckArguments& arguments, const StructureReport& report) {
  StoreInfo info;
  info.path = arguments.shelf;
  info.store_uuid = report.store_uuid;
  info.commit = report.commit;
  info.writer = report.writer;
  info.mode = report.beside_writer ? "beside-writer" : arguments.repair ? "read-write" : "read-only";
  return info;
}

// What --deep adds: every tensor is read.
struct DataResult {
  std::optional<VerifyReport> report;  // absent: not asked for, or the store cannot be opened
  std::string refused;
  std::vector<Json> damage;
};

absl::StatusOr<DataResult> CheckData(const FsckArguments& arguments, Console& console) {
  DataResult result;
  const auto store = OpenForReading(arguments.shelf, console);
  if (!store.ok()) {
    result.refused = PrintableMessage(std::string(store.status().message()));
    if (!arguments.json) console.out << "the tensors were not read: " << result.refused << "\n";
    return result;
  }
  VerifyOptions options;
  if (!arguments.rate.empty()) {
    TS_ASSIGN_OR_RETURN(options.rate_bytes_per_s, ParseBytes(arguments.rate));
  }
  absl::Mutex mutex;  // damage comes from the reading threads, progress from this one
  ProgressLine line(console, "fsck");
  options.on_damage = [&](const VerifyDamage& found) {
    absl::MutexLock lock(&mutex);
    if (arguments.json) return result.damage.push_back(DamageJson(found));
    line.Clear();
    console.out << RenderDamage(found, console) << std::flush;
  };
  if (console.progress) {
    options.progress = [&](const VerifyProgress& progress) {
      absl::MutexLock lock(&mutex);
      line.Update(progress.bytes_done, progress.bytes_total);
    };
  }
  TS_ASSIGN_OR_RETURN(result.report, VerifyStore(**store, "", options));
  return result;
}

std::string RenderSummary(const StructureReport& report, const DataResult& data, const StoreInfo& info,
                          const Console& console) {
  std::string text;
  if (report.index_checked) {
    absl::StrAppend(&text, FormatCount(report.names, "name"), ", ",
                    FormatCount(report.objects + report.inline_objects, "object"), ", ", FormatBytes(report.live),
                    " live + ", FormatBytes(report.free), " free + ", FormatBytes(report.bad),
                    " bad = ", FormatBytes(report.live + report.free + report.bad), " of ",
                    FormatBytes(report.capacity), ", ", StandingText(info), "\n");
  }
  if (data.report.has_value()) {
    absl::StrAppend(&text, FormatBytes(data.report->bytes_read), " of tensors read, ",
                    FormatCount(data.report->damage_count, "damaged place"), "\n");
  }
  const uint64_t left = report.errors_left + (data.report.has_value() ? data.report->damage_count : 0);
  if (report.repaired > 0) absl::StrAppend(&text, FormatCount(report.repaired, "repair"), " done, ");
  const std::string verdict = left == 0 ? "the shelf is sound" : FormatCount(left, "error") + " left";
  absl::StrAppend(&text, Painted(console, left == 0 ? Colour::kGreen : Colour::kRed, verdict));
  if (report.warnings > 0) absl::StrAppend(&text, ", ", FormatCount(report.warnings, "warning"));
  return text + "\n";
}

absl::StatusOr<ExitStatus> RunFsck(const FsckArguments& arguments, Console& console) {
  if (arguments.accept_loss && !arguments.repair) return UsageError("--accept-loss needs --repair");
  StructureCheckOptions options;
  options.deep = arguments.deep;
  options.repair = arguments.repair;
  options.accept_loss = arguments.accept_loss;
  options.devices = arguments.devices;
  Json findings = Json::array(), repairs = Json::array();
  options.on_finding = [&](const Finding& finding) {
    if (arguments.json) {
      findings.push_back(FindingJson(finding));
    } else {
      console.out << RenderFinding(finding, console) << std::flush;
    }
  };
  options.before_repair = [&](const Finding& finding) {
    if (arguments.json) return repairs.push_back(FindingJson(finding));
    console.out << Painted(console, Colour::kBold, "repair") << "  " << finding.code << ": "
                << (finding.file.empty() ? "" : EscapeForTerminal(finding.file) + ": ")
                << PrintableMessage(finding.repair) << "\n"
                << std::flush;
  };
  TS_ASSIGN_OR_RETURN(const StructureReport report, CheckStructure(arguments.shelf, options));
  DataResult data;
  if (arguments.deep && report.index_checked) {
    TS_ASSIGN_OR_RETURN(data, CheckData(arguments, console));
  }
  const StoreInfo info = InfoOf(arguments, report);
  const uint64_t damage = data.report.has_value() ? data.report->damage_count : 0;
  if (arguments.json) {
    Json json = Envelope("fsck", info);
    json.update({{"findings", std::move(findings)},
                 {"repairs", std::move(repairs)},
                 {"notes", report.notes},
                 {"warnings", report.warnings},
                 {"errors", report.errors},
                 {"repaired", report.repaired},
                 {"errors_left", report.errors_left},
                 {"index_checked", report.index_checked},
                 {"names", report.names},
                 {"objects", report.objects},
                 {"inline_objects", report.inline_objects},
                 {"capacity", report.capacity},
                 {"live", report.live},
                 {"free", report.free},
                 {"bad", report.bad}});
    json["bytes_read"] = data.report.has_value() ? Json(data.report->bytes_read) : Json(nullptr);
    json["damage"] = std::move(data.damage);
    console.out << Dump(json);
  } else {
    console.out << RenderSummary(report, data, info, console);
  }
  const ExitStatus repaired = report.repaired > 0 ? ExitStatus::kRepaired : ExitStatus::kClean;
  return report.errors_left + damage > 0 ? repaired | ExitStatus::kDamage : repaired;
}

}  // namespace

Verb AddFsck(CLI::App& app) {
  auto arguments = std::make_shared<FsckArguments>();
  CommandLine line(app, "fsck", kHelp, arguments.get());
  line.Flag("--deep", &arguments->deep, "read every tensor and every file of the index, too");
  line.Flag("--repair", &arguments->repair, "mend what can be mended; each repair is said before it is done");
  line.Flag("--accept-loss", &arguments->accept_loss,
            "with --repair: also where something is given up (acknowledged commits that the index lost, rows that "
            "cannot be read)");
  line.RepeatedText("--device", &arguments->devices, "another directory to look for data files in");
  line.Text("--rate", &arguments->rate, "with --deep: read at most so many bytes a second, such as 200MB");
  return {line.command(), arguments, [arguments](Console& console) { return RunFsck(*arguments, console); }};
}

}  // namespace tensorshelf::cli
