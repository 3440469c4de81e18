// Matches as the tables that `tiepoint match -o m.csv` and `-o m.json` write.
#pragma once

#include <ostream>
#include <string>

#include "matcher.hpp"

namespace tiepoint {

// What is kept beside the matches: where they come from.
struct Metadata {
  std::string image0, image1, model;
  int long_side;
};

void write_csv(std::ostream& stream, const Matches& matches);
void write_json(std::ostream& stream, const Matches& matches, const std::string& version, const Metadata& metadata);

}  // namespace tiepoint
