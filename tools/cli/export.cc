// tensorshelf export: objects out of a shelf into .safetensors, .npy or plain files.

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/export_files.h"
#include "tools/cli/export_plan.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"
#include "tools/npy/npy_header.h"
#include "tools/safetensors/shard_index.h"

namespace tensorshelf::cli {
namespace {

constexpr char kHelp[] =
    "Write objects to a file. The end of OUT says how: .safetensors (all tensors under PREFIX, without it in their "
    "names), "
    ".npy (the tensor named PREFIX), anything else with --format raw (the bytes of the object named PREFIX).\n"
    "A safetensors file is, byte for byte, what the safetensors library would write (its version 0.8). OUT appears "
    "whole or "
    "not at all, and replaces a file of that name.";

struct ExportArguments : CommonOptions {
  std::vector<std::string> rest;  // [PREFIX] OUT
  std::string format;
  std::string shard_size;
  bool keep_prefix = false;
  bool skip_unsupported = false;

  std::string prefix() const { return rest.size() == 2 ? rest[0] : ""; }
  const std::string& out() const { return rest.back(); }
};

struct ExportResult {
  std::vector<std::string> files;
  std::vector<std::string> skipped;
  uint64_t objects = 0;
  uint64_t bytes = 0;  // of the objects
};

// Adds the index of shards behind them, so that it appears last.
absl::Status AddShardIndex(Disk& disk, const ExportSource& source, const std::vector<PlannedExport>& planned,
                           const std::filesystem::path& out, std::vector<OutputFile>& outputs) {
  safetensors::ShardIndex index;
  uint64_t total = 0;
  for (const PlannedExport& file : planned) total += file.data_bytes;
  std::unordered_map<const Object*, const std::string*> names;
  for (const ExportedTensor& tensor : source.tensors) names[&tensor.object] = &tensor.entry.name;
  for (const PlannedExport& file : planned) {
    for (const Object* object : file.tensors) index.weight_map[*names.at(object)] = file.file_name;
  }
  const std::string text = safetensors::FormatShardIndex(index, total);
  TS_ASSIGN_OR_RETURN(OutputFile output,
                      OutputFile::Create(disk, absl::StrCat(out.string(), ".index.json"), text.size()));
  TS_RETURN_IF_ERROR(output.Append(text));
  outputs.push_back(std::move(output));
  return absl::OkStatus();
}

absl::StatusOr<ExportResult> ExportSafetensors(Disk& disk, Store& store, const ExportArguments& arguments,
                                               Console& console) {
  uint64_t shard_bytes = 0;
  if (!arguments.shard_size.empty()) {
    TS_ASSIGN_OR_RETURN(shard_bytes, ParseBytes(arguments.shard_size));
  }
  TS_ASSIGN_OR_RETURN(const ExportSource source,
                      CollectExport(store, {arguments.prefix(), arguments.keep_prefix, arguments.skip_unsupported}));
  const std::filesystem::path out(arguments.out());
  TS_ASSIGN_OR_RETURN(const std::vector<PlannedExport> planned,
                      PlanExport(source, out.filename().string(), shard_bytes));
  ExportResult result{{}, source.skipped, source.tensors.size(), 0};
  uint64_t total = 0;
  for (const PlannedExport& file : planned) total += file.data_bytes;
  ProgressLine line(console, "export");
  std::vector<OutputFile> outputs;
  for (const PlannedExport& file : planned) {
    TS_ASSIGN_OR_RETURN(OutputFile output, OutputFile::Create(disk, (out.parent_path() / file.file_name).string(),
                                                              file.header.size() + file.data_bytes));
    TS_RETURN_IF_ERROR(output.Append(file.header));
    TS_RETURN_IF_ERROR(
        AppendObjects(store, file.tensors, output, [&](uint64_t done) { line.Update(result.bytes + done, total); }));
    result.bytes += file.data_bytes;
    outputs.push_back(std::move(output));
  }
  if (planned.size() > 1) TS_RETURN_IF_ERROR(AddShardIndex(disk, source, planned, out, outputs));
  TS_RETURN_IF_ERROR(PublishAll(disk, outputs));
  for (const OutputFile& output : outputs) result.files.push_back(output.path());
  return result;
}

// .npy and raw: one object, by its whole name.
absl::StatusOr<ExportResult> ExportOne(Disk& disk, Store& store, const ExportArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const Object object, store.Find(arguments.prefix()));
  std::vector<OutputFile> outputs;
  std::string header;
  if (arguments.format == "npy") {
    if (object.record().kind != ObjectKind::kTensor) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", EscapeForTerminal(object.name()), "' is bytes, not a tensor"));
    }
    TS_ASSIGN_OR_RETURN(header, npy::FormatNpyHeader(object.record().dtype, object.record().shape));
  }
  TS_ASSIGN_OR_RETURN(OutputFile output,
                      OutputFile::Create(disk, arguments.out(), header.size() + object.size_bytes()));
  TS_RETURN_IF_ERROR(output.Append(header));
  ProgressLine line(console, "export");
  const Object* const objects[] = {&object};
  TS_RETURN_IF_ERROR(
      AppendObjects(store, objects, output, [&](uint64_t done) { line.Update(done, object.size_bytes()); }));
  outputs.push_back(std::move(output));
  TS_RETURN_IF_ERROR(PublishAll(disk, outputs));
  return ExportResult{{outputs[0].path()}, {}, 1, object.size_bytes()};
}

absl::StatusOr<std::string> FormatOf(const ExportArguments& arguments) {
  if (!arguments.format.empty()) return arguments.format;
  if (absl::EndsWith(arguments.out(), ".safetensors")) return "safetensors";
  if (absl::EndsWith(arguments.out(), ".npy")) return "npy";
  return UsageError(absl::StrCat("'", EscapeForTerminal(arguments.out()),
                                 "' ends neither in .safetensors nor in .npy: say --format"));
}

absl::StatusOr<ExitStatus> RunExport(ExportArguments arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(arguments.format, FormatOf(arguments));
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForReading(arguments.shelf, console));
  const StoreInfo info = store->info();
  TS_ASSIGN_OR_RETURN(const ExportResult result, arguments.format == "safetensors"
                                                     ? ExportSafetensors(*disk, *store, arguments, console)
                                                     : ExportOne(*disk, *store, arguments, console));
  for (const std::string& name : result.skipped) {
    console.err << "tensorshelf export: note: left out '" << EscapeForTerminal(name) << "'\n";
  }
  if (arguments.json) {
    Json json = Envelope("export", info);
    json.update({{"format", arguments.format},
                 {"files", result.files},
                 {"objects", result.objects},
                 {"size", result.bytes},
                 {"skipped", result.skipped}});
    console.out << Dump(json);
  } else {
    console.out << "exported " << FormatCount(result.objects, "object") << ", " << FormatBytes(result.bytes) << ", to "
                << EscapeForTerminal(result.files.front());
    if (result.files.size() > 1) console.out << " and " << FormatCount(result.files.size() - 1, "more file");
    console.out << ", " << StandingText(info) << "\n";
  }
  return ExitStatus::kClean;
}

}  // namespace

Verb AddExport(CLI::App& app) {
  auto arguments = std::make_shared<ExportArguments>();
  CommandLine line(app, "export", kHelp, arguments.get());
  line.RequiredTexts("OUT", &arguments->rest, "[PREFIX] OUT: what (everything when left out), and the file to write",
                     2);
  line.Choice("--format", &arguments->format, "safetensors, npy or raw, whatever OUT ends in",
              {"safetensors", "npy", "raw"});
  line.Text("--shard-size", &arguments->shard_size,
            "cut into files of at most so many bytes of data, such as 5GB, with an index OUT.index.json");
  line.Flag("--keep-prefix", &arguments->keep_prefix, "names in the file keep PREFIX");
  line.Flag("--skip-unsupported", &arguments->skip_unsupported,
            "leave out what a safetensors file cannot hold, and say so");
  return {line.command(), arguments, [arguments](Console& console) { return RunExport(*arguments, console); }};
}

}  // namespace tensorshelf::cli
