// tensorshelf import: tensors of .safetensors and .npy files into a shelf, all or nothing.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/import_copy.h"
#include "tools/cli/import_plan.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

constexpr char kHelp[] =
    "Store the tensors of .safetensors files (also of a *.safetensors.index.json with its shards) and .npy files. One "
    "commit: all tensors are there afterwards, or none.\n"
    "A file is checked before anything is stored. Stricter than the safetensors library: a name twice, an unknown "
    "field or "
    "a field twice in an entry, an entry that is an array, a __metadata__ that is null and a dtype that is no string "
    "are "
    "errors. White space before and after the header's JSON is accepted.\n"
    "A file's metadata is kept in an object PREFIX__metadata__; tensors of types that a shelf has no name for (6-bit "
    "floats) become bytes objects. Export turns both back.";

struct ImportArguments : CommonOptions {
  std::vector<std::string> files;
  std::string prefix;
  std::string rename_map;
  bool drop_file_metadata = false;
  bool replace = false;
  bool skip_unchanged = false;
  bool per_file = false;
  bool resume = false;
  bool dry_run = false;
};

struct ImportResult {
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  uint64_t unchanged = 0;
  uint64_t skipped_files = 0;
  uint64_t commit = 0;
};

// Before a byte is read: a name that is taken is told at once, not after gigabytes.
absl::Status CheckNamesFree(Store& store, const ImportPlan& plan) {
  for (const PlannedFile& file : plan.files) {
    for (const PlannedTensor& tensor : file.tensors) {
      TS_ASSIGN_OR_RETURN(const bool taken, store.Contains(tensor.name));
      if (taken) {
        return absl::AlreadyExistsError(absl::StrCat(
            "'", EscapeForTerminal(tensor.name), "' is in the shelf already; --replace replaces, --prefix avoids it"));
      }
    }
  }
  return absl::OkStatus();
}

// Whether every tensor of the file is there with the same type and shape, as after an import that was cut short.
absl::StatusOr<bool> IsImported(Store& store, const PlannedFile& file) {
  for (const PlannedTensor& tensor : file.tensors) {
    const absl::StatusOr<Object> object = store.Find(tensor.name);
    if (absl::IsNotFound(object.status())) return false;
    TS_RETURN_IF_ERROR(object.status());
    const ObjectRecord& record = object->record();
    if (record.kind != tensor.kind || record.dtype != tensor.dtype || record.shape != tensor.shape ||
        record.logical_bytes != tensor.length) {
      return false;
    }
  }
  return true;
}

// One transaction for `files`, and with `extra` also for the files' metadata.
absl::Status ImportFiles(Disk& disk, Store& store, std::span<PlannedFile> files, std::span<const PutItem> extra,
                         const ImportCopyOptions& options, ImportResult* result) {
  TS_ASSIGN_OR_RETURN(Transaction transaction, store.Begin());
  TS_RETURN_IF_ERROR(CopyIntoTransaction(disk, store, files, options, transaction));
  if (!extra.empty()) TS_RETURN_IF_ERROR(transaction.Put(extra));
  TS_ASSIGN_OR_RETURN(const CommitResult committed, transaction.Commit());
  for (const PlannedFile& file : files) {
    result->tensors += file.tensors.size();
    for (const PlannedTensor& tensor : file.tensors) result->bytes += tensor.length;
  }
  result->unchanged += committed.unchanged_count;
  if (committed.commit > 0) result->commit = committed.commit;
  return absl::OkStatus();
}

absl::StatusOr<ImportResult> ImportPlanned(Disk& disk, Store& store, const ImportArguments& arguments, ImportPlan& plan,
                                           Console& console) {
  if (!arguments.replace && !arguments.resume) TS_RETURN_IF_ERROR(CheckNamesFree(store, plan));
  ImportResult result;
  ProgressLine line(console, "import");
  ImportCopyOptions options;
  // A file that was imported in part cannot be: commits are whole files. What differs is replaced.
  options.replace = arguments.replace || arguments.resume;
  options.skip_unchanged = arguments.skip_unchanged;
  uint64_t done_before = 0;
  options.progress = [&](uint64_t done) { line.Update(done_before + done, plan.bytes); };
  if (!arguments.per_file) {
    TS_RETURN_IF_ERROR(ImportFiles(disk, store, plan.files, plan.extra_items, options, &result));
    return result;
  }
  for (PlannedFile& file : plan.files) {
    TS_ASSIGN_OR_RETURN(const bool done, arguments.resume ? IsImported(store, file) : absl::StatusOr<bool>(false));
    if (done) {
      ++result.skipped_files;
    } else {
      TS_RETURN_IF_ERROR(ImportFiles(disk, store, std::span(&file, 1), {}, options, &result));
    }
    for (const PlannedTensor& tensor : file.tensors) done_before += tensor.length;
  }
  TS_RETURN_IF_ERROR(ImportFiles(disk, store, {}, plan.extra_items, options, &result));
  return result;
}

Json ImportJson(Json json, const ImportResult& result, const ImportPlan& plan, bool dry_run) {
  json.update({{"dry_run", dry_run},
               {"files", plan.files.size()},
               {"tensors", result.tensors},
               {"size", result.bytes},
               {"unchanged", result.unchanged},
               {"skipped_files", result.skipped_files},
               {"notes", plan.notes}});
  return json;
}

absl::StatusOr<ExitStatus> RunImport(const ImportArguments& arguments, Console& console) {
  if (arguments.resume && !arguments.per_file) {
    return UsageError("--resume needs --per-file: without it an import that was cut short left nothing");
  }
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  ImportNames names{arguments.prefix, {}, arguments.drop_file_metadata};
  if (!arguments.rename_map.empty()) {
    TS_ASSIGN_OR_RETURN(names.renames, ReadRenames(*disk, arguments.rename_map));
  }
  TS_ASSIGN_OR_RETURN(ImportPlan plan, PlanImport(*disk, arguments.files, names));
  if (!arguments.replace) {
    for (PutItem& item : plan.extra_items) item.precondition.kind = Precondition::Kind::kAbsent;
  }
  for (const std::string& note : plan.notes) console.err << "tensorshelf import: note: " << note << "\n";
  Json envelope = {{"schema_version", kSchemaVersion}, {"verb", "import"}, {"shelf", arguments.shelf}};
  ImportResult result{plan.tensor_count, plan.bytes, 0, 0, 0};
  if (!arguments.dry_run) {
    TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForWriting(arguments.shelf, console));
    TS_ASSIGN_OR_RETURN(result, ImportPlanned(*disk, *store, arguments, plan, console));
    envelope = Envelope("import", store->info());
    TS_RETURN_IF_ERROR(store->Close());
  }
  if (arguments.json) {
    console.out << Dump(ImportJson(std::move(envelope), result, plan, arguments.dry_run));
    return ExitStatus::kClean;
  }
  console.out << (arguments.dry_run ? "would import " : "imported ") << FormatCount(result.tensors, "tensor") << ", "
              << FormatBytes(result.bytes) << ", from " << FormatCount(plan.files.size(), "file");
  if (result.skipped_files > 0) console.out << ", " << FormatCount(result.skipped_files, "file") << " there already";
  if (result.unchanged > 0) console.out << ", " << result.unchanged << " unchanged";
  if (result.commit > 0) console.out << ", in commit " << result.commit;
  console.out << "\n";
  return ExitStatus::kClean;
}

}  // namespace

Verb AddImport(CLI::App& app) {
  auto arguments = std::make_shared<ImportArguments>();
  CommandLine line(app, "import", kHelp, arguments.get());
  line.RequiredTexts("FILE", &arguments->files, ".safetensors, *.safetensors.index.json or .npy", 0);
  line.Text("--prefix", &arguments->prefix, "put before every name");
  line.Text("--rename-map", &arguments->rename_map, "JSON file: {\"name in the file\": \"name in the shelf\"}");
  line.Flag("--drop-file-metadata", &arguments->drop_file_metadata, "do not keep the files' __metadata__");
  line.Flag("--replace", &arguments->replace, "replace objects of the same names; without it they are an error");
  line.Flag("--skip-unchanged", &arguments->skip_unchanged, "leave objects alone that have the same content");
  line.Flag("--per-file", &arguments->per_file, "one commit for each file instead of one for all");
  line.Flag("--resume", &arguments->resume,
            "with --per-file: skip files whose tensors are all there with the same type and shape; replaces others");
  line.Flag("--dry-run", &arguments->dry_run, "check the files and say what would be imported; opens no shelf");
  return {line.command(), arguments, [arguments](Console& console) { return RunImport(*arguments, console); }};
}

}  // namespace tensorshelf::cli
