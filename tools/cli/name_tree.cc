#include "tools/cli/name_tree.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "store/name.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

struct Line {
  std::string label;
  size_t columns = 0;  // characters of the label on the terminal, one for each code point
  const TreeNode* node = nullptr;
};

size_t Columns(const std::string& text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

void Collect(const TreeNode& node, const std::string& indent, std::vector<Line>* lines) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    const bool last = i + 1 == node.children.size();
    const TreeNode& child = node.children[i];
    const std::string label = absl::StrCat(indent, last ? "└─ " : "├─ ", EscapeForTerminal(child.label));
    lines->push_back({label, Columns(label), &child});
    Collect(child, absl::StrCat(indent, last ? "   " : "│  "), lines);
  }
}

}  // namespace

void NameTree::Add(const std::string& name, uint64_t bytes) {
  TreeNode* node = &root_;
  size_t at = 0;
  for (size_t depth = 0;; ++depth) {
    ++node->names;
    node->bytes += bytes;
    if (at == name.size() || depth == depth_max_) return;
    const size_t separator = name.find_first_of("/.", at);
    const std::string label = name.substr(at, separator == std::string::npos ? separator : separator + 1 - at);
    at += label.size();
    // Names come sorted, so those that share a beginning come together: only the newest child can be theirs.
    if (node->children.empty() || node->children.back().label != label) node->children.push_back({label, 0, 0, {}});
    node = &node->children.back();
  }
}

std::string RenderTree(const TreeNode& root) {
  std::vector<Line> lines;
  Collect(root, "", &lines);
  size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.columns);
  std::string text;
  for (const Line& line : lines) {
    const std::string size = FormatBytes(line.node->bytes);
    absl::StrAppend(&text, line.label, std::string(width - line.columns + 2, ' '),
                    std::string(size.size() < 11 ? 11 - size.size() : 0, ' '), size, "  ",
                    FormatCount(line.node->names, "name"), "\n");
  }
  return text;
}

Json TreeJson(const TreeNode& root) {
  Json children = Json::array();
  for (const TreeNode& child : root.children) children.push_back(TreeJson(child));
  return {{"label", root.label}, {"names", root.names}, {"size", root.bytes}, {"children", std::move(children)}};
}

}  // namespace tensorshelf::cli
