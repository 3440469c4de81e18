// Tie points of two images by a graph that `tiepoint convert` has written; all that a program of yours needs.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <filesystem>
#include <opencv2/core.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace tiepoint {

// What was given is wrong; the message is one sentence with what was found and what was expected.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Best first. Pixels (x, y) of the images as given, the centre of the top-left pixel at (0, 0).
struct Matches {
  std::vector<cv::Point2f> keypoints0, keypoints1;
  std::vector<float> scores;  // in [0, 1]
  cv::Size size0, size1;
};

struct Options {
  int max_keypoints = 2048;  // an image
  int long_side = 1024;      // px; larger images are shrunk to it before they are matched
  int threads = 0;           // 0: one for each core
};

// Remembers the session: make one, use it for all pairs, from one thread at a time.
class Matcher {
 public:
  // Throws InputError where there is no such file, or it is no graph from two images to matches.
  Matcher(const std::filesystem::path& model, const Options& options);

  // Two images of any two sizes from 8x8 px on, CV_8UC3 in the order red, green, blue.
  Matches operator()(const cv::Mat& rgb0, const cv::Mat& rgb1);

  // The version of tiepoint that wrote the graph.
  const std::string& written_by() const { return written_by_; }

 private:
  Options options_;
  Ort::Env environment_;
  Ort::Session session_;
  std::string written_by_;
};

}  // namespace tiepoint
