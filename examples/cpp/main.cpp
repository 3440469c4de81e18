// Tie points of two images, with ONNX Runtime and OpenCV and without Python.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "matcher.hpp"
#include "output.hpp"

namespace {

namespace fs = std::filesystem;
using tiepoint::InputError;

constexpr const char* kUsage =
    "tiepoint-match MODEL.onnx LEFT RIGHT [-o OUT] [--max_keypoints 2048] [--long_side 1024] [--threads 0]\n"
    "OUT ends in .csv or .json; without it the matches go to the standard output, as CSV.\n";

struct Command {
  std::vector<std::string> files;  // model, left, right
  std::string output;
  tiepoint::Options options;
};

int whole_number(const std::string& option, const std::string& text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw InputError(option + " is " + text + ", expected a whole number, " + std::to_string(least) + " to " +
                     std::to_string(most));
  }
  return value;
}

Command parse(const std::vector<std::string>& words) {
  Command command;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.empty() || word[0] != '-') {
      command.files.push_back(word);
      continue;
    }
    if (++i == words.size()) throw InputError(word + " is given without a value or unknown");
    if (word == "-o") {
      command.output = words[i];
    } else if (word == "--max_keypoints") {
      command.options.max_keypoints = whole_number(word, words[i], 1, 65536);
    } else if (word == "--long_side") {
      command.options.long_side = whole_number(word, words[i], 32, 65536);
    } else if (word == "--threads") {
      command.options.threads = whole_number(word, words[i], 0, 1024);
    } else {
      throw InputError("there is no option " + word + ", expected -o, --max_keypoints, --long_side or --threads");
    }
  }
  if (command.files.size() != 3) {
    throw InputError("found " + std::to_string(command.files.size()) + " files, expected three: MODEL.onnx LEFT RIGHT");
  }
  const std::string suffix = fs::path(command.output).extension().string();
  if (!command.output.empty() && suffix != ".csv" && suffix != ".json") {
    throw InputError("-o is " + command.output + ", expected a file that ends in .csv or .json");
  }
  const fs::path folder = (fs::current_path() / command.output).parent_path();
  if (!fs::is_directory(folder))
    throw InputError("-o is " + command.output + ", but there is no folder " + folder.string());
  return command;
}

// Upright (OpenCV applies the EXIF orientation, as tiepoint does), red first.
cv::Mat read_image(const std::string& path) {
  if (!fs::is_regular_file(path)) throw InputError(path + " does not exist or is no file, expected an image");
  cv::Mat image;
  try {
    image = cv::imread(path, cv::IMREAD_COLOR);
  } catch (const cv::Exception&) {  // an announced size beyond its limits
  }
  if (image.empty()) throw InputError(path + " is not an image that OpenCV reads");
  if (std::min(image.cols, image.rows) < 8) {
    throw InputError(path + " is " + std::to_string(image.cols) + "x" + std::to_string(image.rows) +
                     " px, expected sides of 8 px or more");
  }
  cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
  return image;
}

void write_table(std::ostream& stream, const Command& command, const tiepoint::Matches& matches,
                 const std::string& version) {
  if (fs::path(command.output).extension() == ".json") {
    tiepoint::write_json(stream, matches, version,
                         {command.files[1], command.files[2], command.files[0], command.options.long_side});
  } else {
    tiepoint::write_csv(stream, matches);
  }
}

// Beside the target and renamed, so that a reader finds all of it or nothing.
void write_file(const Command& command, const tiepoint::Matches& matches, const std::string& version) {
  const fs::path temporary = command.output + ".part";
  std::ofstream stream(temporary, std::ios::binary);
  if (!stream) throw InputError(command.output + " cannot be written: " + std::strerror(errno));
  write_table(stream, command, matches, version);
  stream.close();
  std::error_code failed;
  if (stream) fs::rename(temporary, command.output, failed);
  if (!stream || failed) {
    fs::remove(temporary);
    throw std::runtime_error(command.output + " could not be written" + (failed ? ": " + failed.message() : ""));
  }
}

void run(const Command& command) {
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);  // one sentence of ours instead
  if (!OrtGetApiBase()->GetApi(ORT_API_VERSION)) {
    throw std::runtime_error("the library is ONNX Runtime " + std::string(OrtGetApiBase()->GetVersionString()) +
                             ", older than the headers that this program was compiled with, 1." +
                             std::to_string(ORT_API_VERSION));
  }
  const cv::Mat left = read_image(command.files[1]), right = read_image(command.files[2]);
  tiepoint::Matcher matcher(command.files[0], command.options);
  const auto start = std::chrono::steady_clock::now();
  const tiepoint::Matches matches = matcher(left, right);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (command.output.empty()) {
    write_table(std::cout, command, matches, matcher.written_by());
  } else {
    write_file(command, matches, matcher.written_by());
    std::cout << matches.scores.size() << " matches in " << std::fixed << std::setprecision(2) << seconds.count()
              << " s; " << command.output << '\n';
  }
}

}  // namespace

// 0 done, 1 the work failed, 2 the command line or an input file was wrong
int main(int count, char** words) {
  if (count < 2 || !std::strcmp(words[1], "--help") || !std::strcmp(words[1], "-h")) {
    (count < 2 ? std::cerr : std::cout) << kUsage;
    return count < 2 ? 2 : 0;
  }
  try {
    run(parse({words + 1, words + count}));
    return 0;
  } catch (const InputError& error) {
    std::cerr << "tiepoint-match: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "tiepoint-match: " << error.what() << '\n';
    return 1;
  }
}
