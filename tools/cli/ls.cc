// tensorshelf ls: names, as a stream, a table, or a tree.

#include <map>
#include <queue>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/listing.h"
#include "tools/cli/name_tree.h"
#include "tools/cli/opening.h"
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

// Prints rows one by one, and at the end what they add up to.
class RowPrinter {
 public:
  RowPrinter(const LsArguments& arguments, const StoreInfo& info, Console& console)
      : arguments_(arguments), info_(info), console_(console), now_ns_(absl::GetCurrentTimeNanos()) {
    if (!arguments_.json) return;
    // The envelope with its end cut off, so that rows can be streamed into it.
    std::string head = DumpLine(Envelope("ls", info_));
    head.pop_back();
    console_.out << head << ",\"names\":[";
  }

  // Names alone; not for JSON.
  void Print(const std::string& name) {
    ++count_;
    console_.out << EscapeForTerminal(name) << "\n";
  }
  void Print(const std::string& name, const ObjectRecord& record) {
    bytes_ += record.logical_bytes;
    if (arguments_.json) {
      console_.out << (count_++ == 0 ? "\n" : ",\n") << DumpLine(ObjectJson(name, record));
      return;
    }
    if (!arguments_.long_rows) return Print(name);
    ++count_;
    const std::string shape = record.kind == ObjectKind::kBytes ? "" : FormatShape(record.shape);
    const double age = static_cast<double>(now_ns_ - record.created_ns) / 1e9;
    console_.out << absl::StrFormat("%-16s %-20s %10s %8s  ", FormatDtype(record), shape,
                                    FormatBytes(record.logical_bytes), FormatDuration(age))
                 << Painted(console_, Colour::kBold, EscapeForTerminal(name)) << "\n";
  }
  // Whatever happened, JSON is closed; an error stands in it.
  void Finish(const absl::Status& status) {
    if (arguments_.json) {
      console_.out << (count_ == 0 ? "],\"count\":" : "\n],\"count\":") << count_ << ",\"size\":" << bytes_;
      if (!status.ok()) console_.out << ",\"error\":" << DumpLine(ErrorJson("ls", arguments_.shelf, status)["error"]);
      console_.out << "}\n";
    } else if (!status.ok()) {
      return;
    } else if (arguments_.long_rows) {
      console_.out << FormatCount(count_, "name") << ", " << FormatBytes(bytes_) << ", " << StandingText(info_) << "\n";
    } else {
      console_.err << FormatCount(count_, "name") << ", " << StandingText(info_) << "\n";
    }
  }

 private:
  const LsArguments& arguments_;
  const StoreInfo& info_;
  Console& console_;
  const int64_t now_ns_;
  uint64_t count_ = 0, bytes_ = 0;
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
  TS_RETURN_IF_ERROR(VisitObjects(store, filter, [&](const Object& object) -> absl::StatusOr<bool> {
    kept.push({object.name(), object.record()});
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
  return VisitObjects(store, filter, [&](const Object& object) -> absl::StatusOr<bool> {
    printer.Print(object.name(), object.record());
    return --left > 0;
  });
}

absl::Status PrintTree(Store& store, const LsArguments& arguments, const NameFilter& filter, const StoreInfo& info,
                       Console& console) {
  NameTree tree(arguments.depth);
  TS_RETURN_IF_ERROR(VisitObjects(store, filter, [&](const Object& object) -> absl::StatusOr<bool> {
    tree.Add(object.name(), object.size_bytes());
    return true;
  }));
  if (arguments.json) {
    Json json = Envelope("ls", info);
    json["tree"] = TreeJson(tree.root());
    console.out << Dump(json);
  } else {
    console.out << RenderTree(tree.root()) << FormatCount(tree.root().names, "name") << ", "
                << FormatBytes(tree.root().bytes) << ", " << StandingText(info) << "\n";
  }
  return absl::OkStatus();
}

absl::StatusOr<ExitStatus> RunLs(const LsArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForReading(arguments.shelf, console));
  const NameFilter filter = FilterOf(arguments.names, arguments.literal);
  const StoreInfo info = store->info();
  if (arguments.tree) {
    TS_RETURN_IF_ERROR(PrintTree(*store, arguments, filter, info, console));
    return ExitStatus::kClean;
  }
  RowPrinter printer(arguments, info, console);
  const bool streams = arguments.sort == "name" && !arguments.reverse;
  const absl::Status status =
      streams ? PrintStreamed(*store, arguments, filter, printer) : PrintSorted(*store, arguments, filter, printer);
  printer.Finish(status);
  if (!arguments.json || status.ok()) return status.ok() ? absl::StatusOr<ExitStatus>(ExitStatus::kClean) : status;
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
  line.Flag("-l,--long", &arguments->long_rows, "with dtype, shape, size and age");
  line.Flag("--tree", &arguments->tree, "fold names at / and . and add up their sizes");
  line.Number("--depth", &arguments->depth, "levels of the tree", 1, 64);
  line.Choice("--sort", &arguments->sort, "name, size (largest first) or time (newest first)",
              {"name", "size", "time"});
  line.Flag("-r,--reverse", &arguments->reverse, "the other way round");
  line.Number("--limit", &arguments->limit, "at most so many names", 1, ~uint64_t{0});
  return {line.command(), arguments, [arguments](Console& console) { return RunLs(*arguments, console); }};
}

}  // namespace tensorshelf::cli
