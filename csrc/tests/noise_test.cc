// The vector kernels against the scalar transforms of normal.h: every instruction set, distribution, input and output, at odd sizes, from
// the middle of a row, far along the stream.
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "jaxsec/noise.h"
#include "jaxsec/normal.h"

using namespace jaxsec;

namespace {

// Distance in units of the last place.
int64_t Ulps(float a, float b) {
  const auto order = [](float v) { return BitsOf(v) < 0 ? int64_t{INT32_MIN} - BitsOf(v) : int64_t{BitsOf(v)}; };
  return std::llabs(order(a) - order(b));
}

// Cells whose cuts are so coarse that many words do not decide: 16 bits name the cell, 16 are compared.
constexpr int32_t kCellBits = 16;
std::vector<uint32_t> Table() {
  const uint32_t cells = 1u << kCellBits;
  std::vector<uint32_t> table(2 * cells);
  for (uint32_t i = 0; i < cells; ++i) {
    table[i] = ((i * 40503u + 77u) % cells) << (32 - kCellBits) | (i * 2654435761u >> kCellBits), table[cells + i] = i * 0x9E3779B9u;
  }
  return table;
}

float Scalar(Distribution kind, const NoiseArrays& a, int64_t image, uint64_t sample, int64_t p, int64_t n) {
  const Block block = philox4x32(Counter{uint64_t{kNoiseStream} << 32 | static_cast<uint64_t>(p % n), sample}, Key{a.key[2 * image], a.key[2 * image + 1]});
  const int64_t w = p / n;
  if (kind == Distribution::kLaplace) return LaplaceOf(block.word[w]);
  if (kind == Distribution::kUniform) return UniformOf(block.word[w]);
  if (kind == Distribution::kDiscreteGaussian) {
    return DiscreteOf(block.word[w], a.table, kCellBits, [&] {
      return philox4x32(Counter{uint64_t{kNoiseStream + 1} << 32 | static_cast<uint64_t>(p % n), sample}, Key{a.key[2 * image], a.key[2 * image + 1]}).word[w];
    });
  }
  float z[2];
  NormalPair(block.word[w / 2 * 2], block.word[w / 2 * 2 + 1], z[0], z[1]);
  return z[w % 2];
}

uint16_t Bfloat16(float value) {
  const uint32_t bits = static_cast<uint32_t>(BitsOf(value));
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// Everything beyond [begin, end) must stay as it was.
void Case(NoiseFn run, Distribution kind, Input input, Output output, int64_t d, int64_t channels, int64_t inner, int64_t begin, int64_t end) {
  const int64_t images = 2, samples = 3, n = (d + 3) / 4;
  const NoisePlan plan{images, samples, d, channels, inner, kind, input, output, kCellBits};
  static const std::vector<uint32_t> table = Table();
  std::vector<float> x(static_cast<size_t>(images * d)), multiply(static_cast<size_t>(channels)), add(static_cast<size_t>(channels));
  std::vector<uint8_t> pixels(static_cast<size_t>(images * d));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(pixels[i] = static_cast<uint8_t>(37 * i)) / 64.0f;
  for (size_t c = 0; c < add.size(); ++c) multiply[c] = 1.0f + static_cast<float>(c), add[c] = 0.5f * static_cast<float>(c);
  const uint32_t key[4] = {1, 2, 3, 4}, first[4] = {0xFFFFFFFEu, 7, 5, 0};
  const float sigma[2] = {0.25f, 1.0f};
  std::vector<float> y(static_cast<size_t>(images * samples * d), -7.0f);
  std::vector<uint16_t> half(y.size(), 0xFFFF);
  const void* source = input == Input::kUint8 ? static_cast<const void*>(pixels.data()) : input == Input::kFloat32 ? x.data() : nullptr;
  const NoiseArrays a{source, key, first, sigma, multiply.data(), add.data(), table.data(),
                      output == Output::kFloat32 ? static_cast<void*>(y.data()) : static_cast<void*>(half.data())};
  run(plan, a, 0, images * samples, begin, end);
  for (int64_t image = 0; image < images; ++image) {
    for (int64_t s = 0; s < samples; ++s) {
      for (int64_t p = 0; p < d; ++p) {
        const size_t i = static_cast<size_t>((image * samples + s) * d + p), from = static_cast<size_t>(image * d + p);
        const bool inside = p % n >= begin && p % n < end;
        const uint64_t sample = (uint64_t{first[2 * image + 1]} << 32 | first[2 * image]) + static_cast<uint64_t>(s);
        const float z = Scalar(kind, a, image, sample, p, n), m = multiply[static_cast<size_t>(p / inner % channels)];
        const float value = input == Input::kNone ? 0.0f : input == Input::kFloat32 ? x[from] : static_cast<float>(pixels[from]) * (1.0f / 255.0f);
        const bool discrete = kind == Distribution::kDiscreteGaussian;
        const float on_grid = input == Input::kNone ? 0.0f : input == Input::kFloat32 ? std::nearbyint(x[from] * 255.0f) : static_cast<float>(pixels[from]);
        const float shift = add[static_cast<size_t>(p / inner % channels)];
        const float want = discrete ? (z + on_grid) * (m * (1.0f / 255.0f)) + shift : z * (sigma[image] * m) + (value * m + shift);
        if (output == Output::kBfloat16) {
          CHECK(inside ? std::abs(int(half[i]) - int(Bfloat16(want))) <= 1 || std::fabs(want) < 1e-2f : half[i] == 0xFFFF);
        } else if (!inside) {
          CHECK(y[i] == -7.0f);
        } else if (discrete) {  // rounded once or twice
          CHECK(std::fabs(y[i] - want) <= 2e-7f * (std::fabs((z + on_grid) * m / 255.0f) + std::fabs(shift)));
        } else if (input == Input::kNone && channels == 1) {
          CHECK(Ulps(y[i], want) <= 4);
        } else {
          CHECK(std::fabs(y[i] - want) <= 4e-7f * (std::fabs(z * sigma[image] * m) + std::fabs(value * m) + std::fabs(want)));
        }
      }
    }
  }
}

// The last blocks of a row of more than 2^33 values, of a sample beyond the 2^32nd: the memory between is reserved, never touched.
void Far(NoiseFn run) {
  const int64_t d = (int64_t{1} << 33) + 6, n = (d + 3) / 4, begin = n - 21;
  const NoisePlan plan{1, 1, d, 1, 1, Distribution::kUniform, Input::kNone, Output::kFloat32, 0};
  void* memory = mmap(nullptr, static_cast<size_t>(d) * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  float* y = static_cast<float*>(memory);
  const uint32_t key[2] = {5, 6}, first[2] = {3, 9};
  const float sigma = 1.0f, multiply = 1.0f, add = 0.0f;
  const NoiseArrays a{nullptr, key, first, &sigma, &multiply, &add, nullptr, y};
  run(plan, a, 0, 1, begin, n);
  for (int64_t w = 0; w < 4; ++w) {
    for (int64_t b = begin - 1; b < n && w * n + b < d; ++b) {
      const int64_t p = w * n + b;
      CHECK(y[p] == (b < begin ? 0.0f : Scalar(Distribution::kUniform, a, 0, (uint64_t{9} << 32) + 3, p, n)));
    }
  }
  munmap(memory, static_cast<size_t>(d) * 4);
}

// A NaN of any bits in x, sigma or the channels is a NaN in bfloat16, and its neighbours are numbers.
void Nan(NoiseFn run) {
  const uint32_t key[2] = {1, 2}, first[2] = {3, 4}, payloads[4] = {0x7FC00000u, 0x7FFFFFFFu, 0x7F800001u, 0xFFFFFFFFu};
  for (const auto kind : {Distribution::kGaussian, Distribution::kDiscreteGaussian}) {
    static const std::vector<uint32_t> table = Table();
    for (const uint32_t bits : payloads) {
      const float nan = FloatOf(static_cast<int32_t>(bits)), one = 1.0f;
      float x[40] = {};
      std::memcpy(x + 7, &nan, 4);
      uint16_t y[40];
      const NoisePlan plan{1, 1, 40, 1, 1, kind, Input::kFloat32, Output::kBfloat16, kCellBits};
      run(plan, NoiseArrays{x, key, first, &one, &one, &one, table.data(), y}, 0, 1, 0, 10);
      for (int i = 0; i < 40; ++i) CHECK(((y[i] & 0x7FFF) > 0x7F80) == (i == 7));
      run(plan, NoiseArrays{x, key, first, &one, &nan, &one, table.data(), y}, 0, 1, 0, 10);
      for (int i = 0; i < 40; ++i) CHECK((y[i] & 0x7FFF) > 0x7F80);
    }
  }
}

// Sample 42 of the key below at d = 8, by Philox in Python's integers and the transforms in float64: an answer that shares no code with us.
struct Answer {
  Distribution kind;
  float y[8];
};
constexpr Answer kKnown[] = {
    {Distribution::kGaussian, {0.3260309f, -0.539217726f, -1.23942947f, 0.93200515f, 0.26690299f, 2.09476114f, -1.90592699f, 0.102262823f}},
    {Distribution::kLaplace, {0.128093599f, -2.1191085f, -0.541497368f, 0.405033443f, 1.15875027f, 1.50609377f, -0.608277485f, 4.16517208f}},
    {Distribution::kUniform, {-0.12022897f, 0.120138684f, 0.581876317f, -0.333045495f, -0.686121803f, -0.778225409f, 0.544287605f, -0.984472957f}},
};

void Known(NoiseFn run) {
  const uint32_t key[2] = {0x01234567u, 0x89ABCDEFu}, first[2] = {42, 0};
  const float one = 1.0f, zero = 0.0f;
  float y[8];
  for (const Answer& answer : kKnown) {
    const NoisePlan plan{1, 1, 8, 1, 1, answer.kind, Input::kNone, Output::kFloat32, 0};
    run(plan, NoiseArrays{nullptr, key, first, &one, &one, &zero, nullptr, y}, 0, 1, 0, 2);
    for (int i = 0; i < 8; ++i) CHECK(std::fabs(y[i] - answer.y[i]) <= 4e-7f * (1.0f + std::fabs(answer.y[i])));
  }
}

}  // namespace

int main() {
  // The transform itself against float64.
  for (uint32_t i = 0; i < 200000; ++i) {
    const Block block = philox4x32(Counter{i, 9}, Key{3, 5});
    for (const uint32_t word0 : {block.word[0], i, ~i}) {
      float z[2];
      NormalPair(word0, block.word[1], z[0], z[1]);
      const double u = static_cast<double>(static_cast<float>(word0) * 0x1p-32f + 0x1p-33f), turn = block.word[1] * 0x1p-32 * 2 * M_PI;
      const double r = std::sqrt(-2 * std::log(u));
      CHECK(std::fabs(z[0] - r * std::cos(turn)) <= 4e-7 * r && std::fabs(z[1] - r * std::sin(turn)) <= 4e-7 * r);
    }
    CHECK(std::fabs(UniformOf(block.word[2])) <= 1.0f && std::isfinite(LaplaceOf(block.word[3])));
  }
  float z[2];
  NormalPair(0, 0, z[0], z[1]);
  CHECK(std::fabs(z[0] - 6.7637f) < 1e-3f && z[1] == 0.0f);  // the largest radius: sqrt(2 ln 2^33)
  NormalPair(0xFFFFFFFFu, 0, z[0], z[1]);
  CHECK(z[0] == 0.0f && z[1] == 0.0f);

  NoiseFn variants[3];
  const int count = NoiseVariants(variants);
  for (int v = 0; v < count; ++v) {
    for (const auto kind : {Distribution::kGaussian, Distribution::kLaplace, Distribution::kUniform, Distribution::kDiscreteGaussian}) {
      for (const auto input : {Input::kNone, Input::kFloat32, Input::kUint8}) {
        for (const auto output : {Output::kFloat32, Output::kBfloat16}) {
          for (const int64_t d : {1, 3, 4, 5, 17, 63, 64, 65, 129, 784}) {
            const int64_t n = (d + 3) / 4;
            Case(variants[v], kind, input, output, d, 1, 1, 0, n);
            Case(variants[v], kind, input, output, d, 3, 1, 0, n);
            Case(variants[v], kind, input, output, d, 3, 5, n / 3, n - n / 4);
          }
        }
      }
    }
    Far(variants[v]);
    Known(variants[v]);
    Nan(variants[v]);
    const NoisePlan empty{0, 3, 8, 1, 8, Distribution::kGaussian, Input::kNone, Output::kFloat32, 0};
    variants[v](empty, NoiseArrays{}, 0, 0, 0, 2);
  }
  return 0;
}
