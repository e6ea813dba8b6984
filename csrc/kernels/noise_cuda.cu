// The noise of noise.h on a GPU. A thread keeps V positions in each quarter of an image, with what does not vary over the samples in
// registers, and makes them for every P-th sample: the loop holds Philox, the transform, one multiply-add a value, and vector stores.
#include <cuda_bf16.h>

#include <algorithm>

#include "jaxsec/noise_cuda.h"
#include "jaxsec/normal.h"

namespace jaxsec {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kEnough = int64_t{1} << 20;  // threads that keep the largest GPUs full, in several waves

template <int bytes>
struct Word;
template <>
struct Word<1> { using Type = uint8_t; };
template <>
struct Word<2> { using Type = uint16_t; };
template <>
struct Word<4> { using Type = uint32_t; };
template <>
struct Word<8> { using Type = uint2; };
template <>
struct Word<16> { using Type = uint4; };

// One access to memory for V values.
template <typename T, int V>
union Vector {
  typename Word<sizeof(T) * V>::Type whole;
  T at[V];
};

__device__ inline float Value(float x) { return x; }
__device__ inline float Value(uint8_t x) { return static_cast<float>(x) * (1.0f / 255.0f); }
__device__ inline float OnGrid(float x) { return rintf(x * 255.0f); }
__device__ inline float OnGrid(uint8_t x) { return static_cast<float>(x); }

template <int V>
__device__ inline void Store(float* y, const float (&value)[V]) {
  Vector<float, V> to;
#pragma unroll
  for (int v = 0; v < V; ++v) to.at[v] = value[v];
  *reinterpret_cast<decltype(to.whole)*>(y) = to.whole;
}

template <int V>
__device__ inline void Store(uint16_t* y, const float (&value)[V]) {
  Vector<uint32_t, (V + 1) / 2> to;
#pragma unroll
  for (int v = 0; v < V; v += 2) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(value[v], v + 1 < V ? value[v + 1] : 0.0f);
    to.at[v / 2] = *reinterpret_cast<const uint32_t*>(&two);
  }
  if constexpr (V == 1) {
    *y = static_cast<uint16_t>(to.whole);
  } else {
    *reinterpret_cast<decltype(to.whole)*>(y) = to.whole;
  }
}

template <Distribution kind>
__device__ inline void Values(const NoisePlan& plan, const NoiseArrays& a, uint32_t at, uint64_t sample, const Key& key, float (&z)[4]) {
  const Block block = philox4x32(Counter{uint64_t{kNoiseStream} << 32 | at, sample}, key);
  if constexpr (kind == Distribution::kDiscreteGaussian) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const auto second = [&] { return philox4x32(Counter{uint64_t{kNoiseStream + 1} << 32 | at, sample}, key).word[w]; };
      z[w] = DiscreteOf(block.word[w], a.table, plan.cell_bits, second);
    }
  } else if constexpr (kind == Distribution::kGaussian) {
    NormalPair(block.word[0], block.word[1], z[0], z[1]);
    NormalPair(block.word[2], block.word[3], z[2], z[3]);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w) z[w] = kind == Distribution::kLaplace ? LaplaceOf(block.word[w]) : UniformOf(block.word[w]);
  }
}

// V > 1 needs d divisible by 4 V, and addresses aligned to vectors. `flat`: one channel. Out: float, or uint16_t for bfloat16.
template <Distribution kind, Input input, typename Out, int V, bool flat>
__global__ void __launch_bounds__(kThreads, 2) Noise(NoisePlan plan, NoiseArrays a, int64_t chunks, int64_t parallel) {
  using In = std::conditional_t<input == Input::kUint8, uint8_t, float>;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x, n = plan.Blocks();
  if (thread >= chunks * parallel) return;
  const int64_t start = thread / chunks, b = (thread - start * chunks) * V;

  for (int64_t image = blockIdx.y; image < plan.images; image += gridDim.y) {
    constexpr bool discrete = kind == Distribution::kDiscreteGaussian;
    const uint2 key = reinterpret_cast<const uint2*>(a.key)[image];
    const uint2 first = reinterpret_cast<const uint2*>(a.first)[image];
    const float sigma = a.sigma[image];
    float base[4][V], scale[4][flat ? 1 : V], shift[4][flat ? 1 : V];  // shift: of the discrete Gaussian
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int64_t p = w * n + b;
      Vector<In, V> x = {};
      if (input != Input::kNone && p < plan.d) {
        x.whole = *reinterpret_cast<const decltype(x.whole)*>(static_cast<const In*>(a.x) + image * plan.d + p);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const int64_t channel = flat ? 0 : (p + v) / plan.inner % plan.channels;
        base[w][v] = discrete ? OnGrid(x.at[v]) : Value(x.at[v]) * a.multiply[channel] + a.add[channel];
        scale[w][flat ? 0 : v] = discrete ? a.multiply[channel] * (1.0f / 255.0f) : sigma * a.multiply[channel];
        shift[w][flat ? 0 : v] = a.add[channel];
      }
    }
    uint64_t index = (uint64_t{first.y} << 32 | first.x) + static_cast<uint64_t>(start);
    Out* y = static_cast<Out*>(a.y) + (image * plan.samples + start) * plan.d + b;
    for (int64_t sample = start; sample < plan.samples; sample += parallel, index += parallel, y += parallel * plan.d) {
      float value[4][V];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const uint32_t block = static_cast<uint32_t>(b + v);
        float z[4];
        Values<kind>(plan, a, block, index, Key{key.x, key.y}, z);
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float each = scale[w][flat ? 0 : v];
          value[w][v] = discrete ? (z[w] + base[w][v]) * each + shift[w][flat ? 0 : v] : z[w] * each + base[w][v];
        }
      }
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if (V > 1 || w * n + b < plan.d) Store(y + w * n, value[w]);
      }
    }
  }
}

template <Distribution kind, Input input, typename Out, int V, bool flat>
cudaError_t Launch(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays) {
  const int64_t chunks = plan.Blocks() / V, images = std::min<int64_t>(plan.images, 65535);
  const int64_t wanted = (kEnough + chunks * images - 1) / (chunks * images);
  const int64_t parallel = std::min(plan.samples, wanted);
  const dim3 grid(static_cast<unsigned>((chunks * parallel + kThreads - 1) / kThreads), static_cast<unsigned>(images));
  Noise<kind, input, Out, V, flat><<<grid, kThreads, 0, stream>>>(plan, arrays, chunks, parallel);
  return cudaPeekAtLastError();
}

template <Distribution kind, Input input, typename Out>
cudaError_t PickShape(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays) {
  constexpr int V = 4;
  const auto aligned = [](const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  const bool wide = plan.d % (4 * V) == 0 && aligned(arrays.y, sizeof(Out) * V) &&
                    (input == Input::kNone || aligned(arrays.x, (input == Input::kUint8 ? 1 : 4) * V));
  const bool flat = plan.channels == 1;
  if (wide) {
    return flat ? Launch<kind, input, Out, V, true>(stream, plan, arrays) : Launch<kind, input, Out, V, false>(stream, plan, arrays);
  }
  return flat ? Launch<kind, input, Out, 1, true>(stream, plan, arrays) : Launch<kind, input, Out, 1, false>(stream, plan, arrays);
}

template <Distribution kind, Input input>
cudaError_t PickOutput(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays) {
  return plan.output == Output::kFloat32 ? PickShape<kind, input, float>(stream, plan, arrays)
                                         : PickShape<kind, input, uint16_t>(stream, plan, arrays);
}

template <Distribution kind>
cudaError_t PickInput(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays) {
  switch (plan.input) {
    case Input::kNone: return PickOutput<kind, Input::kNone>(stream, plan, arrays);
    case Input::kFloat32: return PickOutput<kind, Input::kFloat32>(stream, plan, arrays);
    default: return PickOutput<kind, Input::kUint8>(stream, plan, arrays);
  }
}

}  // namespace

cudaError_t LaunchNoise(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays) {
  if (plan.images * plan.samples * plan.d == 0) return cudaSuccess;
  switch (plan.distribution) {
    case Distribution::kGaussian: return PickInput<Distribution::kGaussian>(stream, plan, arrays);
    case Distribution::kLaplace: return PickInput<Distribution::kLaplace>(stream, plan, arrays);
    case Distribution::kDiscreteGaussian: return PickInput<Distribution::kDiscreteGaussian>(stream, plan, arrays);
    default: return PickInput<Distribution::kUniform>(stream, plan, arrays);
  }
}

}  // namespace jaxsec
