#include "tools/cli/space_picture.h"

#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/name.h"
#include "tools/cli/opening.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

constexpr size_t kRows = 12;        // of a file, on a terminal
constexpr size_t kColourCount = 6;  // prefixes with a colour of their own, the largest ones
constexpr std::array<const char*, kColourCount> kTerminalColours = {"32", "34", "33", "35", "36", "92"};
constexpr std::array<const char*, kColourCount> kSvgColours = {"#4e9a5b", "#4573b8", "#d3a13b",
                                                               "#9b5fb0", "#3ba3a8", "#b8683f"};
constexpr const char* kSvgOther = "#7f7f7f";
constexpr size_t kSvgCells = 1000, kSvgRows = 32, kSvgRowHeight = 12;

std::string Coloured(const Console& console, int32_t prefix, const std::string& text) {
  if (!console.colour || prefix < 0 || static_cast<size_t>(prefix) >= kColourCount) return text;
  return absl::StrCat("\x1b[", kTerminalColours[prefix], "m", text, "\x1b[0m");
}

const char* Glyph(const Cell& cell) {
  if (cell.bad) return "X";
  if (cell.live <= 0) return "·";
  static constexpr const char* kShades[] = {"░", "▒", "▓", "█"};
  return kShades[std::min<size_t>(3, static_cast<size_t>(cell.live * 4))];
}

uint64_t UnitsPerCell(const FileUse& file, size_t count) {
  return std::max<uint64_t>(1, (file.file.units() + count - 1) / count);
}

std::string PathOf(const StoreInfo& info, uint32_t file_id) {
  for (const FileInfo& file : info.files) {
    if (file.file_id == file_id) return file.path.empty() ? "MISSING" : file.path;
  }
  return "";
}

std::string LabelText(const PrefixUse& prefix) {
  return prefix.label.empty() ? "(no / or . in the name)" : EscapeForTerminal(prefix.label);
}

std::string EscapeXml(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else {
      escaped.push_back(c);
    }
  }
  return escaped;
}

bool SameLook(const Cell& a, const Cell& b) {
  return a.prefix == b.prefix && a.bad == b.bad && static_cast<int>(a.live * 10) == static_cast<int>(b.live * 10);
}

std::string SvgColour(const Cell& cell) {
  if (cell.bad) return "#c02020";
  return cell.prefix >= 0 && static_cast<size_t>(cell.prefix) < kColourCount ? kSvgColours[cell.prefix] : kSvgOther;
}

void AppendSvgFile(const ShelfSpace& space, const FileUse& file, size_t* y, std::string* svg) {
  absl::StrAppend(svg, absl::StrFormat("<text x=\"10\" y=\"%d\">", *y + 14),
                  EscapeXml(EscapeForTerminal(PathOf(space.info, file.file.file_id))), ": ",
                  FormatBytes(file.live_units * kUnitBytes), " live, ", FormatBytes(file.free_units() * kUnitBytes),
                  " free</text>\n");
  *y += 22;
  const std::vector<Cell> cells = CellsOf(space, file, kSvgCells * kSvgRows);
  for (size_t row = 0; row * kSvgCells < cells.size(); ++row, *y += kSvgRowHeight) {
    const size_t end = std::min(cells.size(), (row + 1) * kSvgCells);
    absl::StrAppend(svg, absl::StrFormat("<rect x=\"10\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#ececec\"/>\n", *y,
                                         end - row * kSvgCells, kSvgRowHeight - 2));
    for (size_t i = row * kSvgCells; i < end;) {
      size_t same = i + 1;
      while (same < end && SameLook(cells[i], cells[same])) ++same;
      if (cells[i].live > 0 || cells[i].bad) {
        absl::StrAppend(svg, absl::StrFormat("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\" "
                                             "fill-opacity=\"%.2f\"/>\n",
                                             10 + i % kSvgCells, *y, same - i, kSvgRowHeight - 2, SvgColour(cells[i]),
                                             cells[i].bad ? 1 : 0.25 + 0.75 * cells[i].live));
      }
      i = same;
    }
  }
  *y += 8;
}

}  // namespace

std::vector<Cell> CellsOf(const ShelfSpace& space, const FileUse& file, size_t count) {
  const uint64_t cell_units = UnitsPerCell(file, count);
  const size_t cells_count = (file.file.units() + cell_units - 1) / cell_units;
  std::vector<Cell> cells(cells_count);
  std::vector<uint64_t> live(cells_count), most(cells_count), current(cells_count);
  std::vector<int32_t> current_prefix(cells_count, -1);
  const auto units_in = [&](size_t cell, uint64_t begin, uint64_t end) {
    const uint64_t cell_begin = file.file.first_unit + cell * cell_units;
    return std::min(end, cell_begin + cell_units) - std::max(begin, cell_begin);
  };
  const auto for_cells = [&](uint64_t begin, uint64_t end, auto visit) {
    for (size_t cell = (begin - file.file.first_unit) / cell_units;
         cell < cells_count && file.file.first_unit + cell * cell_units < end; ++cell) {
      visit(cell, units_in(cell, begin, end));
    }
  };
  const auto begin = std::ranges::lower_bound(space.map.owned, file.file.file_id, {},
                                              [](const OwnedExtent& item) { return item.extent.file_id; });
  for (auto item = begin; item != space.map.owned.end() && item->extent.file_id == file.file.file_id; ++item) {
    const int32_t prefix = space.owner_prefix[item - space.map.owned.begin()];
    for_cells(item->extent.first_unit, item->extent.end_unit(), [&](size_t cell, uint64_t units) {
      live[cell] += units;
      // Neighbours of one prefix add up; the longest stretch names the cell.
      current[cell] = current_prefix[cell] == prefix ? current[cell] + units : units;
      current_prefix[cell] = prefix;
      if (current[cell] > most[cell]) {
        most[cell] = current[cell];
        cells[cell].prefix = prefix;
      }
    });
  }
  for (size_t cell = 0; cell < cells_count; ++cell) {
    const uint64_t units = units_in(cell, file.file.first_unit, file.file.end_unit);
    cells[cell].live = std::min(1.0, static_cast<double>(live[cell]) / static_cast<double>(units));
  }
  // Bad is what is neither live nor free.
  std::vector<uint64_t> free(cells_count);
  for (const UnitRun& run : file.free) {
    for_cells(run.first, run.end(), [&](size_t cell, uint64_t units) { free[cell] += units; });
  }
  for (size_t cell = 0; file.bad_units > 0 && cell < cells_count; ++cell) {
    cells[cell].bad = live[cell] + free[cell] < units_in(cell, file.file.first_unit, file.file.end_unit);
  }
  return cells;
}

std::string RenderMap(const ShelfSpace& space, const Console& console) {
  const size_t width = std::clamp<size_t>(console.columns, 20, 200) - 2;
  std::string text;
  for (const FileUse& file : space.map.files) {
    const std::vector<Cell> cells = CellsOf(space, file, width * kRows);
    absl::StrAppend(&text, Painted(console, Colour::kBold, absl::StrCat("data file ", file.file.file_id)), "  ",
                    EscapeForTerminal(PathOf(space.info, file.file.file_id)), ", ",
                    FormatBytes(UnitsPerCell(file, width * kRows) * kUnitBytes), " a cell\n");
    for (size_t row = 0; row * width < cells.size(); ++row) {
      text += "  ";
      for (size_t i = row * width; i < std::min(cells.size(), (row + 1) * width); ++i) {
        text += cells[i].bad ? Painted(console, Colour::kRed, Glyph(cells[i]))
                             : Coloured(console, cells[i].prefix, Glyph(cells[i]));
      }
      text += "\n";
    }
  }
  text += "  · free   ░▒▓█ live, by share   X bad\n";
  for (size_t i = 0; console.colour && i < std::min(kColourCount, space.prefixes.size()); ++i) {
    absl::StrAppend(&text, "  ", Coloured(console, static_cast<int32_t>(i), "█"), " ", LabelText(space.prefixes[i]),
                    "  ", FormatBytes(space.prefixes[i].space + space.prefixes[i].shared), "\n");
  }
  return absl::StrCat(text, FormatBytes(space.live), " live, ", FormatBytes(space.free), " free of ",
                      FormatBytes(space.capacity), ", ", StandingText(space.info), "\n");
}

std::string MapSvg(const ShelfSpace& space) {
  std::string body;
  size_t y = 10;
  absl::StrAppend(&body, absl::StrFormat("<text x=\"10\" y=\"%d\" font-weight=\"bold\">", y + 14),
                  EscapeXml(EscapeForTerminal(space.info.path)), ", ", EscapeXml(StandingText(space.info)),
                  "</text>\n");
  y += 28;
  for (const FileUse& file : space.map.files) AppendSvgFile(space, file, &y, &body);
  for (size_t i = 0; i < std::min(kColourCount, space.prefixes.size()); ++i, y += 18) {
    absl::StrAppend(&body,
                    absl::StrFormat("<rect x=\"10\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>"
                                    "<text x=\"28\" y=\"%d\">",
                                    y, kSvgColours[i], y + 11),
                    EscapeXml(LabelText(space.prefixes[i])), ", ",
                    FormatBytes(space.prefixes[i].space + space.prefixes[i].shared), "</text>\n");
  }
  return absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", kSvgCells + 20, "\" height=\"", y + 10,
                      "\" font-family=\"monospace\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
                      "fill=\"white\"/>\n",
                      body, "</svg>\n");
}

}  // namespace tensorshelf::cli
