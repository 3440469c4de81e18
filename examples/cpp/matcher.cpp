#include "matcher.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <opencv2/imgproc.hpp>

namespace tiepoint {
namespace {

constexpr std::array<const char*, 3> kInputs{"image0", "image1", "max_keypoints"};
constexpr std::array<const char*, 4> kOutputs{"keypoints0", "keypoints1", "matches0", "scores"};
constexpr int kLeastSide = 8;  // px

Ort::Session start(const Ort::Env& environment, const std::filesystem::path& model, int threads) {
  if (!std::filesystem::is_regular_file(model)) {
    throw InputError(model.string() + " does not exist or is no file, expected an .onnx file");
  }
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  // waiting threads that spin take the cores from whoever shares the machine
  options.AddConfigEntry("session.intra_op.allow_spinning", "0");
  try {
    return Ort::Session(environment, model.c_str(), options);
  } catch (const Ort::Exception& error) {
    throw InputError(model.string() + " is no ONNX graph that ONNX Runtime can run: " + error.what());
  }
}

std::vector<std::string> names(const Ort::Session& session, bool inputs) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<std::string> found(inputs ? session.GetInputCount() : session.GetOutputCount());
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] =
        (inputs ? session.GetInputNameAllocated(i, allocator) : session.GetOutputNameAllocated(i, allocator)).get();
  }
  return found;
}

template <size_t N>
bool all_in(const std::array<const char*, N>& wanted, const std::vector<std::string>& found) {
  return std::all_of(wanted.begin(), wanted.end(),
                     [&](const char* name) { return std::find(found.begin(), found.end(), name) != found.end(); });
}

std::string join(const std::vector<std::string>& words) {
  return std::accumulate(words.begin(), words.end(), std::string(), [](const auto& so_far, const auto& word) {
    return so_far + (so_far.empty() ? "" : ", ") + word;
  });
}

void check_graph(const std::filesystem::path& model, const Ort::Session& session) {
  const auto inputs = names(session, true), outputs = names(session, false);
  if (inputs.size() != kInputs.size() || !all_in(kInputs, inputs) || !all_in(kOutputs, outputs)) {
    throw InputError(model.string() + " is an ONNX graph from " + join(inputs) + " to " + join(outputs) +
                     ", expected one from image0, image1, max_keypoints to matches, as `tiepoint convert` writes it");
  }
}

std::string read_version(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("tiepoint", allocator);
  return text ? text.get() : "unknown";
}

struct Shrunk {
  cv::Mat pixels;
  cv::Point2f scale;  // pixel x of `pixels` lies at (x + 0.5) * scale.x - 0.5 in the image as given
};

Shrunk shrink(const cv::Mat& image, int long_side) {
  const double ratio = static_cast<double>(long_side) / std::max(image.cols, image.rows);
  if (ratio >= 1) return {image.isContinuous() ? image : image.clone(), {1, 1}};
  // nearbyint: halves to the even number, as Python rounds
  const cv::Size size(std::max(1, static_cast<int>(std::nearbyint(image.cols * ratio))),
                      std::max(1, static_cast<int>(std::nearbyint(image.rows * ratio))));
  cv::Mat small;
  cv::resize(image, small, size, 0, 0, cv::INTER_AREA);
  return {small,
          {static_cast<float>(static_cast<double>(image.cols) / size.width),
           static_cast<float>(static_cast<double>(image.rows) / size.height)}};
}

cv::Point2f to_original(const float* point, cv::Point2f scale) {
  return {(point[0] + 0.5f) * scale.x - 0.5f, (point[1] + 0.5f) * scale.y - 0.5f};
}

// It borrows the pixels: row by row, (batch, height, width, 3).
Ort::Value tensor(const Ort::MemoryInfo& memory, cv::Mat& pixels) {
  const std::array<int64_t, 4> shape{1, pixels.rows, pixels.cols, 3};
  return Ort::Value::CreateTensor<uint8_t>(memory, pixels.data, pixels.total() * 3, shape.data(), shape.size());
}

// Rows of `matches0` with a partner, best first; padding and keypoints without one have -1.
std::vector<int64_t> matched_rows(const int64_t* matches0, const float* scores, int64_t count) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < count; ++i) {
    if (matches0[i] >= 0) rows.push_back(i);
  }
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  return rows;
}

void check_image(const cv::Mat& image, const char* name) {
  if (image.type() != CV_8UC3 || std::min(image.cols, image.rows) < kLeastSide) {
    throw InputError(std::string(name) + " is " + std::to_string(image.cols) + "x" + std::to_string(image.rows) +
                     " px of " + std::to_string(image.channels()) +
                     " channels, expected three of 8 bits, and sides of 8 px or more");
  }
}

}  // namespace

Matcher::Matcher(const std::filesystem::path& model, const Options& options)
    : options_(options),
      environment_(ORT_LOGGING_LEVEL_ERROR, "tiepoint"),
      session_(start(environment_, model, options.threads)) {
  check_graph(model, session_);
  written_by_ = read_version(session_);
}

Matches Matcher::operator()(const cv::Mat& rgb0, const cv::Mat& rgb1) {
  check_image(rgb0, "image 0");
  check_image(rgb1, "image 1");
  Shrunk images[] = {shrink(rgb0, options_.long_side), shrink(rgb1, options_.long_side)};

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  int64_t count = options_.max_keypoints;
  Ort::Value inputs[] = {tensor(memory, images[0].pixels), tensor(memory, images[1].pixels),
                         Ort::Value::CreateTensor<int64_t>(memory, &count, 1, nullptr, 0)};  // a scalar: no dimension
  const auto outputs =
      session_.Run(Ort::RunOptions{nullptr}, kInputs.data(), inputs, kInputs.size(), kOutputs.data(), kOutputs.size());
  const float* keypoints0 = outputs[0].GetTensorData<float>();
  const float* keypoints1 = outputs[1].GetTensorData<float>();
  const int64_t* matches0 = outputs[2].GetTensorData<int64_t>();
  const float* scores = outputs[3].GetTensorData<float>();
  const auto rows = static_cast<int64_t>(outputs[2].GetTensorTypeAndShapeInfo().GetElementCount());

  Matches found;
  found.size0 = rgb0.size();
  found.size1 = rgb1.size();
  for (const int64_t i : matched_rows(matches0, scores, rows)) {
    found.keypoints0.push_back(to_original(keypoints0 + 2 * i, images[0].scale));
    found.keypoints1.push_back(to_original(keypoints1 + 2 * matches0[i], images[1].scale));
    found.scores.push_back(scores[i]);
  }
  return found;
}

}  // namespace tiepoint
