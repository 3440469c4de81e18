#include "output.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace tiepoint {
namespace {

// The shortest number that is still exact, in Python's spelling: 0.1, 100.0, 1e-05.
std::string number(float value) {
  char text[64];
  const bool tiny = value != 0 && std::abs(value) < 1e-4f;
  const auto format = tiny ? std::chars_format::scientific : std::chars_format::fixed;
  std::string shortest(text, std::to_chars(text, text + sizeof text, value, format).ptr);
  return tiny || shortest.find('.') != std::string::npos ? shortest : shortest + ".0";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      (result += '\\') += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      result += code;
    } else {
      result += c;
    }
  }
  return result + '"';
}

void write_points(std::ostream& stream, const char* name, const std::vector<cv::Point2f>& points) {
  stream << ",\"" << name << "\":[";
  for (size_t i = 0; i < points.size(); ++i) {
    stream << (i ? ",[" : "[") << number(points[i].x) << ',' << number(points[i].y) << ']';
  }
  stream << ']';
}

}  // namespace

void write_csv(std::ostream& stream, const Matches& matches) {
  stream << "x0,y0,x1,y1,score\n";
  for (size_t i = 0; i < matches.scores.size(); ++i) {
    for (const cv::Point2f point : {matches.keypoints0[i], matches.keypoints1[i]}) {
      stream << number(point.x) << ',' << number(point.y) << ',';
    }
    stream << number(matches.scores[i]) << '\n';
  }
}

void write_json(std::ostream& stream, const Matches& matches, const std::string& version, const Metadata& metadata) {
  stream << "{\"tiepoint\":" << quoted(version) << ",\"size0\":[" << matches.size0.height << ',' << matches.size0.width
         << "],\"size1\":[" << matches.size1.height << ',' << matches.size1.width << ']';
  write_points(stream, "keypoints0", matches.keypoints0);
  write_points(stream, "keypoints1", matches.keypoints1);
  stream << ",\"scores\":[";
  for (size_t i = 0; i < matches.scores.size(); ++i) stream << (i ? "," : "") << number(matches.scores[i]);
  stream << "],\"metadata\":{\"image0\":" << quoted(metadata.image0) << ",\"image1\":" << quoted(metadata.image1)
         << ",\"model\":" << quoted(metadata.model) << ",\"long_side\":" << metadata.long_side << "}}\n";
}

}  // namespace tiepoint
