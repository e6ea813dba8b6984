// Noise of randomized smoothing: a pure function of (key, sample, position), the same on every backend.
//
// A sample is a row of d values. With n = ceil(d / 4), block b in [0, n) of a sample is Philox4x32-10 at the counter
// (b, kNoiseStream, sample, sample >> 32), and position p reads word p / n of block p % n. So each word makes one contiguous quarter of
// the row: vector stores on every machine, without a shuffle. Normals are made in pairs, of the words (0, 1) and (2, 3).
//
// One call makes, for each image i, each of its samples s and each position p of channel c:
//   y[i, s, p] = z(key[i], first[i] + s, p) (sigma[i] multiply[c]) + (x[i, p] multiply[c] + add[c])
// with x as it is, or uint8 times 1/255, or absent (0); y float32 or bfloat16, rounded to nearest even. That is (x + sigma z), normalised,
// with all that does not vary over the samples taken out of the loop.
//
// The discrete Gaussian is on the grid of 1/255, in integers: z is a whole number, x the byte, or a float32 rounded to the grid, and
//   y[i, s, p] = float(z + 255 x) (multiply[c] / 255) + add[c],
// so that y depends on their sum alone. z is drawn by the alias method (Walker 1977) from 64 bits, of which the last 32 are made only where
// the first do not decide: with m = log2 of the table's cells, the top m bits of a word w name a cell i, the others are compared with its
// cut; below it is outcome i, else the cell's alias; outcome i is the number i - 2^(m - 1). A table is the cells' alias << (32 - m) | high
// 32 - m bits of the cut, then the low 32 bits of the cuts, which are compared with the same word of stream kNoiseStream + 1.
#ifndef JAXSEC_NOISE_H_
#define JAXSEC_NOISE_H_

#include <cstdint>

#include "jaxsec/philox.h"

namespace jaxsec {

constexpr uint32_t kNoiseStream = 0x534E6F69u;  // `random_bits` has 0 here until its 2^34th word

// N(0, 1); exp(-|z|) / 2; flat on (-1, 1); whole numbers by a table
enum class Distribution : int32_t { kGaussian = 0, kLaplace = 1, kUniform = 2, kDiscreteGaussian = 3 };
enum class Input : int32_t { kNone = 0, kFloat32 = 1, kUint8 = 2 };
enum class Output : int32_t { kFloat32 = 0, kBfloat16 = 1 };

struct NoisePlan {
  int64_t images, samples, d;  // samples of each image
  int64_t channels, inner;     // position p has channel (p / inner) % channels
  Distribution distribution;
  Input input;
  Output output;
  int32_t cell_bits;           // m above; 0 where there is no table

  JAXSEC_HOST_DEVICE int64_t Blocks() const { return (d + 3) / 4; }
};

struct NoiseArrays {
  const void* x;           // [images, d]
  const uint32_t* key;     // [images, 2]
  const uint32_t* first;   // [images, 2], low word first: the number of the first sample
  const float* sigma;      // [images]
  const float *multiply, *add;  // [channels]
  const uint32_t* table;   // [2, cells], of the discrete Gaussian
  void* y;                 // [images, samples, d]
};

// Computes blocks [begin, end) of rows [row_begin, row_end) of y on the CPU; a row is image * samples + sample.
using NoiseFn = void (*)(const NoisePlan& plan, const NoiseArrays& a, int64_t row_begin, int64_t row_end, int64_t begin, int64_t end);

// The variants that this processor runs, widest first; there is always one.
int NoiseVariants(NoiseFn variants[3]);

}  // namespace jaxsec

#endif  // JAXSEC_NOISE_H_
