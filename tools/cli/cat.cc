// tensorshelf cat: one object, as bytes, as values, or summed up.

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/element.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/tensor_stats.h"
#include "tools/cli/tensor_text.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

constexpr uint64_t kWindowBytes = uint64_t{32} << 20;  // a multiple of every item and every checksum block
constexpr uint64_t kDumpBytes = 512;

struct CatArguments : CommonOptions {
  std::string name;
  bool print = false;
  bool stats = false;
};

// All bytes in order, a window at a time.
absl::Status ForEachWindow(Store& store, const Object& object, Console& console,
                           const std::function<bool(std::span<const std::byte> piece)>& visit) {
  const uint64_t size = object.size_bytes();
  TS_ASSIGN_OR_RETURN(MemoryPool::Piece memory, store.memory_pool()->Allocate(std::min(size, kWindowBytes)));
  ProgressLine line(console, "cat");
  for (uint64_t offset = 0; offset < size; offset += kWindowBytes) {
    const std::span<std::byte> to(memory.data(), std::min(kWindowBytes, size - offset));
    const ReadRequest request{&object, offset, to};
    TS_RETURN_IF_ERROR(store.Read(std::span(&request, 1), {}));
    if (!visit(to)) return absl::OkStatus();
    line.Update(offset + to.size(), size);
  }
  return absl::OkStatus();
}

absl::Status PrintRaw(Store& store, const Object& object, Console& console) {
  return ForEachWindow(store, object, console, [&](std::span<const std::byte> piece) {
    console.out.write(reinterpret_cast<const char*>(piece.data()), static_cast<std::streamsize>(piece.size()));
    return console.out.good();
  });
}

absl::StatusOr<TensorStats> CollectStats(Store& store, const Object& object, const ElementType& type,
                                         Console& console) {
  const std::unique_ptr<StatsCollector> collector = NewStatsCollector(type);
  // What fits into one window is not read twice.
  std::optional<std::span<const std::byte>> only;
  TS_RETURN_IF_ERROR(ForEachWindow(store, object, console, [&](std::span<const std::byte> piece) {
    collector->First(piece);
    if (piece.size() == object.size_bytes() && collector->needs_second()) {
      collector->Second(piece);
      only = piece;
    }
    return true;
  }));
  if (collector->needs_second() && !only.has_value()) {
    TS_RETURN_IF_ERROR(ForEachWindow(store, object, console, [&](std::span<const std::byte> piece) {
      collector->Second(piece);
      return true;
    }));
  }
  return collector->Finish();
}

// The shown elements, read as single ranges: of a large tensor a few blocks only.
struct ShownElements {
  TextPlan plan;
  std::vector<std::string> texts;
  std::vector<Json> numbers;
};

Json NumberJson(const ElementType& type, const std::string& text, double value) {
  if (type.kind == ElementKind::kBool) return value != 0;
  if (type.kind == ElementKind::kComplex || !std::isfinite(value)) return text;
  if (type.kind == ElementKind::kFloat) return value;
  return Json::parse(text);
}

absl::StatusOr<ShownElements> ReadShown(Store& store, const Object& object, const ElementType& type) {
  const bool is_bytes = object.record().kind == ObjectKind::kBytes;
  const std::vector<uint64_t> shape =
      is_bytes ? std::vector<uint64_t>{object.size_bytes()} : ElementShape(type, object.record().shape);
  ShownElements shown{PlanText(shape), {}, {}};
  struct Range {
    uint64_t first_part;  // of the run, in its first item
    uint64_t count;
    std::span<std::byte> bytes;
  };
  uint64_t bytes = 0;
  for (const ElementRun& run : shown.plan.runs) bytes += (run.count / type.per_item + 2) * type.item_bytes;
  std::vector<std::byte> memory(bytes);
  std::vector<Range> ranges;
  std::vector<ReadRequest> requests;
  std::byte* to = memory.data();
  for (const ElementRun& run : shown.plan.runs) {
    const uint64_t begin = run.first / type.per_item;
    const uint64_t end = (run.first + run.count + type.per_item - 1) / type.per_item;
    const uint64_t length = (end - begin) * type.item_bytes;
    ranges.push_back({run.first % type.per_item, run.count, {to, length}});
    requests.push_back({&object, begin * type.item_bytes, {to, length}});
    to += length;
  }
  TS_RETURN_IF_ERROR(store.Read(requests, {}));
  for (const Range& range : ranges) {
    for (uint64_t i = 0; i < range.count; ++i) {
      const uint64_t element = range.first_part + i;
      const std::byte* item = &range.bytes[element / type.per_item * type.item_bytes];
      const auto part = static_cast<uint32_t>(element % type.per_item);
      shown.texts.push_back(ElementText(type, item, part));
      shown.numbers.push_back(NumberJson(type, shown.texts.back(), ElementValue(type, item, part)));
    }
  }
  return shown;
}

Json ValuesJson(const ShownElements& shown) {
  Json runs = Json::array();
  size_t next = 0;
  for (const ElementRun& run : shown.plan.runs) {
    Json values = Json::array();
    for (uint64_t i = 0; i < run.count; ++i) values.push_back(shown.numbers[next++]);
    runs.push_back({{"first", run.first}, {"values", std::move(values)}});
  }
  return runs;
}

// Offset, sixteen bytes, and what of them is ASCII.
std::string HexDump(std::span<const std::byte> bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    absl::StrAppend(&text, absl::StrFormat("%08x ", at));
    std::string letters;
    for (size_t i = 0; i < 16; ++i) {
      if (at + i >= bytes.size()) {
        text += "   ";
        continue;
      }
      const auto byte = std::to_integer<uint8_t>(bytes[at + i]);
      absl::StrAppend(&text, absl::StrFormat(" %02x", byte));
      letters.push_back(byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '.');
    }
    absl::StrAppend(&text, "  |", letters, "|\n");
  }
  return text;
}

absl::Status PrintDump(Store& store, const Object& object, Console& console) {
  std::vector<std::byte> bytes(std::min(kDumpBytes, object.size_bytes()));
  const ReadRequest request{&object, 0, bytes};
  TS_RETURN_IF_ERROR(store.Read(std::span(&request, 1), {}));
  console.out << HexDump(bytes);
  if (object.size_bytes() > bytes.size()) {
    console.out << "... " << FormatBytes(object.size_bytes() - bytes.size()) << " more\n";
  }
  return absl::OkStatus();
}

absl::Status PrintText(Store& store, const Object& object, const std::optional<ElementType>& type,
                       const CatArguments& arguments, Console& console) {
  console.out << Painted(console, Colour::kBold, EscapeForTerminal(object.name())) << "  "
              << FormatDtype(object.record());
  if (object.record().kind == ObjectKind::kTensor) console.out << " " << FormatShape(object.record().shape);
  console.out << ", " << FormatBytes(object.size_bytes()) << "\n";
  if (arguments.print && object.record().kind == ObjectKind::kBytes) {
    TS_RETURN_IF_ERROR(PrintDump(store, object, console));
  } else if (arguments.print) {
    TS_ASSIGN_OR_RETURN(const ShownElements shown, ReadShown(store, object, *type));
    console.out << RenderTensor(shown.plan, shown.texts, console.columns) << "\n";
  }
  if (arguments.stats) {
    TS_ASSIGN_OR_RETURN(const TensorStats stats, CollectStats(store, object, *type, console));
    console.out << RenderStats(stats, console);
  }
  console.err << StandingText(store.info()) << "\n";
  return absl::OkStatus();
}

absl::Status PrintJson(Store& store, const Object& object, const std::optional<ElementType>& type,
                       const CatArguments& arguments, Console& console) {
  Json json = Envelope("cat", store.info());
  json["object"] = ObjectJson(object.name(), object.record());
  if (arguments.print) {
    TS_ASSIGN_OR_RETURN(const ShownElements shown, ReadShown(store, object, *type));
    json["values"] = ValuesJson(shown);
  }
  if (arguments.stats) {
    TS_ASSIGN_OR_RETURN(const TensorStats stats, CollectStats(store, object, *type, console));
    json["stats"] = StatsJson(stats);
  }
  console.out << Dump(json);
  return absl::OkStatus();
}

absl::StatusOr<ExitStatus> RunCat(const CatArguments& arguments, Console& console) {
  const bool raw = !arguments.print && !arguments.stats;
  if (raw && arguments.json) return UsageError("raw bytes are not JSON: --print or --stats");
  if (raw && console.terminal) return UsageError("raw bytes to a terminal? --print or --stats show values");
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForReading(arguments.shelf, console));
  TS_ASSIGN_OR_RETURN(const Object object, store->Find(arguments.name));
  const ObjectRecord& record = object.record();
  // Bytes are shown as the unsigned numbers that they are.
  const bool is_bytes = record.kind == ObjectKind::kBytes;
  const std::optional<ElementType> type = is_bytes ? ElementType{} : FindElementType(record.dtype);
  if (!raw && !type.has_value()) {
    return absl::UnimplementedError(absl::StrCat("'", EscapeForTerminal(arguments.name), "' is of ",
                                                 FormatDtype(record), ", which this version cannot show"));
  }
  TS_RETURN_IF_ERROR(raw              ? PrintRaw(*store, object, console)
                     : arguments.json ? PrintJson(*store, object, type, arguments, console)
                                      : PrintText(*store, object, type, arguments, console));
  return ExitStatus::kClean;
}

}  // namespace

Verb AddCat(CLI::App& app) {
  auto arguments = std::make_shared<CatArguments>();
  CommandLine line(app, "cat", "Write an object's bytes to standard output, or show its values.", arguments.get());
  line.RequiredText("NAME", &arguments->name, "the whole name");
  line.Flag("--print", &arguments->print, "values in brackets, large tensors summarised; of bytes objects a hex dump");
  line.Flag("--stats", &arguments->stats, "min, max, mean, deviation, NaN, infinities, zeros, and a histogram");
  return {line.command(), arguments, [arguments](Console& console) { return RunCat(*arguments, console); }};
}

}  // namespace tensorshelf::cli
