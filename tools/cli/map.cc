// tensorshelf map: a picture of what lies where.

#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/name.h"
#include "tools/cli/export_files.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/space_picture.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct MapArguments : CommonOptions {
  std::string svg;
  uint64_t cells = 1024;
};

Json MapJson(const ShelfSpace& space, uint64_t cell_count) {
  Json json = Envelope("map", space.info);
  Json prefixes = Json::array();
  for (const PrefixUse& prefix : space.prefixes) prefixes.push_back(prefix.label);
  json["prefixes"] = std::move(prefixes);
  Json files = Json::array();
  for (const FileUse& file : space.map.files) {
    Json cells = Json::array();
    for (const Cell& cell : CellsOf(space, file, cell_count)) {
      cells.push_back(
          {{"live", cell.live}, {"bad", cell.bad}, {"prefix", cell.prefix < 0 ? Json() : Json(cell.prefix)}});
    }
    files.push_back({{"file_id", file.file.file_id},
                     {"data_begin", file.file.first_unit * kUnitBytes},
                     {"data_end", file.file.end_unit * kUnitBytes},
                     {"cells", std::move(cells)}});
  }
  json["files"] = std::move(files);
  return json;
}

absl::Status WriteSvg(const std::string& path, const std::string& svg) {
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  std::vector<OutputFile> outputs;
  TS_ASSIGN_OR_RETURN(OutputFile output, OutputFile::Create(*disk, path, svg.size()));
  TS_RETURN_IF_ERROR(output.Append(svg));
  outputs.push_back(std::move(output));
  return PublishAll(*disk, outputs);
}

absl::StatusOr<ExitStatus> RunMap(const MapArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  TS_ASSIGN_OR_RETURN(const ShelfSpace space, CollectSpace(*store));
  if (!arguments.svg.empty()) TS_RETURN_IF_ERROR(WriteSvg(arguments.svg, MapSvg(space)));
  if (arguments.json) {
    Json json = MapJson(space, arguments.cells);
    if (!arguments.svg.empty()) json["svg"] = arguments.svg;
    console.out << Dump(json);
  } else if (arguments.svg.empty()) {
    console.out << RenderMap(space, console);
  } else {
    console.out << "drawn to " << EscapeForTerminal(arguments.svg) << ", " << StandingText(space.info) << "\n";
  }
  return ExitStatus::kClean;
}

}  // namespace

Verb AddMap(CLI::App& app) {
  auto arguments = std::make_shared<MapArguments>();
  CommandLine line(app, "map", "Draw the data files: what is live, free and bad, and under which names.",
                   arguments.get());
  line.Text("--svg", &arguments->svg, "draw into this file instead of on the terminal");
  line.Number("--cells", &arguments->cells, "of --json: cells a file", 1, 1'000'000);
  return {line.command(), arguments, [arguments](Console& console) { return RunMap(*arguments, console); }};
}

}  // namespace tensorshelf::cli
