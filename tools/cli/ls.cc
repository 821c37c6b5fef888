// tensorshelf ls: names, as a stream, a table, or a tree.

#include <map>
#include <queue>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/listing.h"
#include "tools/cli/name_tree.h"
#include "tools/cli/opening.h"
#include "tools/cli/row_printer.h"
#include "tools/cli/run.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

enum class SortBy { kName, kSize, kTime };

struct LsArguments : CommonOptions {
  std::string names;
  bool literal = false;
  bool long_rows = false;
  bool tree = false;
  uint64_t depth = 3;
  std::string sort = "name";
  bool reverse = false;
  uint64_t limit = 0;
};

struct Row {
  std::string name;
  ObjectRecord record;
};

// Largest or newest first; names break ties. With a limit, memory for that many rows.
absl::Status PrintSorted(Store& store, const LsArguments& arguments, const NameFilter& filter, RowPrinter& printer) {
  static const std::map<std::string, SortBy> kSorts = {
      {"name", SortBy::kName}, {"size", SortBy::kSize}, {"time", SortBy::kTime}};
  const SortBy by = kSorts.at(arguments.sort);
  const auto before = [by, reverse = arguments.reverse](const Row& left, const Row& right) {
    const Row& a = reverse ? right : left;
    const Row& b = reverse ? left : right;
    if (by == SortBy::kSize && a.record.logical_bytes != b.record.logical_bytes) {
      return a.record.logical_bytes > b.record.logical_bytes;
    }
    if (by == SortBy::kTime && a.record.created_ns != b.record.created_ns)
      return a.record.created_ns > b.record.created_ns;
    return a.name < b.name;
  };
  // The row on top is the one that goes first when there are too many.
  std::priority_queue<Row, std::vector<Row>, decltype(before)> kept(before);
  TS_RETURN_IF_ERROR(VisitRecords(store, filter, [&](const ListedRecord& listed) {
    if (!listed.status.ok()) {
      printer.PrintDamaged(listed.name, listed.status);
      return true;
    }
    kept.push({listed.name, listed.record});
    if (arguments.limit > 0 && kept.size() > arguments.limit) kept.pop();
    return true;
  }));
  std::vector<Row> rows;
  for (; !kept.empty(); kept.pop()) rows.push_back(kept.top());
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) printer.Print(row->name, row->record);
  return absl::OkStatus();
}

absl::Status PrintStreamed(Store& store, const LsArguments& arguments, const NameFilter& filter, RowPrinter& printer) {
  uint64_t left = arguments.limit > 0 ? arguments.limit : ~uint64_t{0};
  if (!arguments.json && !arguments.long_rows) {
    return VisitNames(store, filter, [&](const std::string& name) {
      printer.Print(name);
      return --left > 0;
    });
  }
  return VisitRecords(store, filter, [&](const ListedRecord& listed) {
    if (listed.status.ok()) {
      printer.Print(listed.name, listed.record);
    } else {
      printer.PrintDamaged(listed.name, listed.status);
    }
    return --left > 0;
  });
}

absl::StatusOr<ExitStatus> PrintTree(Store& store, const LsArguments& arguments, const NameFilter& filter,
                                     const StoreInfo& info, Console& console) {
  NameTree tree(arguments.depth);
  uint64_t damaged = 0;
  TS_RETURN_IF_ERROR(VisitRecords(store, filter, [&](const ListedRecord& listed) {
    damaged += listed.status.ok() ? 0 : 1;
    tree.Add(listed.name, listed.status.ok() ? listed.record.logical_bytes : 0);
    return true;
  }));
  if (arguments.json) {
    Json json = Envelope("ls", info);
    json["tree"] = TreeJson(tree.root());
    json["damaged"] = damaged;
    console.out << Dump(json);
  } else {
    console.out << RenderTree(tree.root()) << FormatCount(tree.root().names, "name") << ", "
                << FormatBytes(tree.root().bytes) << ", " << StandingText(info) << "\n";
    if (damaged > 0) console.err << FormatCount(damaged, "damaged record") << "\n";
  }
  return damaged == 0 ? ExitStatus::kClean : ExitStatus::kDamage;
}

absl::StatusOr<ExitStatus> RunLs(const LsArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  const NameFilter filter = FilterOf(arguments.names, arguments.literal);
  const StoreInfo info = store->info();
  if (arguments.tree) return PrintTree(*store, arguments, filter, info, console);
  const RowStyle style = arguments.json ? RowStyle::kJson : arguments.long_rows ? RowStyle::kLong : RowStyle::kNames;
  RowPrinter printer(style, arguments.shelf, info, console);
  const bool streams = arguments.sort == "name" && !arguments.reverse;
  const absl::Status status =
      streams ? PrintStreamed(*store, arguments, filter, printer) : PrintSorted(*store, arguments, filter, printer);
  printer.Finish(status);
  const ExitStatus found = printer.damaged() == 0 ? ExitStatus::kClean : ExitStatus::kDamage;
  if (status.ok()) return found;
  if (!arguments.json) return status;
  console.err << "tensorshelf ls: " << PrintableMessage(std::string(status.message())) << "\n";
  return ExitStatusOf(status);
}

}  // namespace

Verb AddLs(CLI::App& app) {
  auto arguments = std::make_shared<LsArguments>();
  CommandLine line(app, "ls", "List names. Streams, whatever their number, unless sorted by size or time.",
                   arguments.get());
  line.Text("NAMES", &arguments->names, "a prefix, or a pattern with * ? [a-z] (quote it from the shell)");
  line.Flag("--literal", &arguments->literal, "NAMES is a prefix also when it looks like a pattern");
  line.Flag("-l,--long", &arguments->long_rows, "with dtype, shape, size, tier and age");
  line.Flag("--tree", &arguments->tree, "fold names at / and . and add up their sizes");
  line.Number("--depth", &arguments->depth, "levels of the tree", 1, 64);
  line.Choice("--sort", &arguments->sort, "name, size (largest first) or time (newest first)",
              {"name", "size", "time"});
  line.Flag("-r,--reverse", &arguments->reverse, "the other way round");
  line.Number("--limit", &arguments->limit, "at most so many names", 1, ~uint64_t{0});
  return {line.command(), arguments, [arguments](Console& console) { return RunLs(*arguments, console); }};
}

}  // namespace tensorshelf::cli
