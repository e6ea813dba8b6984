// Every variant that this machine runs, against a naive double loop: odd sizes, strides, uneven pads, crops, gates, phases, ReLU.

#include "jaxsec/conv2d.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

#include "random.h"

namespace {

void Naive(const jaxsec::Conv2dPlan& s, const float* x, const float* w, const float* bias, const float* gate, std::vector<double>& y) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t h = 0; h < s.out_h; ++h)
      for (int64_t v = 0; v < s.out_w; ++v)
        for (int64_t c = 0; c < s.out_c; ++c) {
          const int64_t a = (h + s.crop_top) / s.phase, ry = (h + s.crop_top) % s.phase;
          const int64_t b = (v + s.crop_left) / s.phase, rx = (v + s.crop_left) % s.phase;
          const int64_t o = (ry * s.phase + rx) * s.out_c + c;
          double sum = bias[o];
          for (int64_t i = 0; i < s.kh; ++i)
            for (int64_t j = 0; j < s.kw; ++j)
              for (int64_t k = 0; k < s.c; ++k) {
                const int64_t ih = a * s.stride + i - s.pad_top, iw = b * s.stride + j - s.pad_left;
                if (ih < 0 || ih >= s.h || iw < 0 || iw >= s.w) continue;
                const int64_t at = ((n * s.h + ih) * s.w + iw) * s.c + k;
                if (s.gated && !(gate[at] > 0.0f)) continue;
                sum += static_cast<double>(x[at]) * w[((i * s.kw + j) * s.c + k) * s.o + o];
              }
          if (s.relu && sum < 0) sum = 0;
          y[static_cast<size_t>(((n * s.out_h + h) * s.out_w + v) * s.out_c + c)] = sum;
        }
}

}  // namespace

int main() {
  std::mt19937 engine(0);
  jaxsec::Conv2dFn variants[3];
  const int n_variants = jaxsec::Conv2dVariants(variants);
  int checked = 0;
  for (int64_t c : {1, 3, 16})
    for (int64_t out_c : {1, 10, 16, 33})
      for (int64_t k : {1, 2, 3, 5})
        for (int64_t stride : {1, 2, 3})
          for (int64_t phase : {1, 2})
            for (int64_t pad_top : {0, 2})
              for (int option = 0; option < 4; ++option) {
                const bool relu = option & 1, gated = option & 2;
                const int64_t h = 7, w = 9, pad_left = pad_top / 2, kw = k > 1 ? k - 1 : 1, crop = phase > 1 ? 1 : 0;
                const int64_t oh = (h + pad_top + pad_left - k) / stride + 1, ow = (w + pad_left - kw) / stride + 1;
                if (oh < 1 || ow < 1) continue;
                const int64_t o = (phase * phase * out_c + 15) / 16 * 16;
                const jaxsec::Conv2dPlan plan{3, h, w, c, k, kw, o, oh, ow, stride, pad_top, pad_left, phase, oh * phase - crop,
                                              ow * phase - crop, out_c, crop, crop, relu, gated};
                const auto x = Random(engine, 3 * h * w * c), weights = Random(engine, k * kw * c * o), bias = Random(engine, o);
                const auto gate = Random(engine, 3 * h * w * c);
                const size_t size = static_cast<size_t>(3 * plan.out_h * plan.out_w * out_c);
                std::vector<double> wanted(size);
                Naive(plan, x.data(), weights.data(), bias.data(), gate.data(), wanted);
                for (int v = 0; v < n_variants; ++v) {
                  std::vector<float> got(size, NAN), scratch(static_cast<size_t>(jaxsec::Conv2dScratch(plan)));
                  variants[v](plan, x.data(), weights.data(), bias.data(), gate.data(), got.data(), scratch.data(), 0, 2);
                  variants[v](plan, x.data(), weights.data(), bias.data(), gate.data(), got.data(), scratch.data(), 2, 3);
                  for (size_t i = 0; i < size; ++i)
                    if (!(std::fabs(got[i] - wanted[i]) <= 2e-4 * (1 + std::fabs(wanted[i])))) {
                      std::cerr << "variant " << v << " c " << c << " out_c " << out_c << " k " << k << " stride " << stride << " phase "
                                << phase << " option " << option << ": " << got[i] << ", not " << wanted[i] << "\n";
                      return 1;
                    }
                  std::vector<float> whole(size, NAN);  // split or not, the same bits
                  variants[v](plan, x.data(), weights.data(), bias.data(), gate.data(), whole.data(), scratch.data(), 0, 3);
                  if (whole != got) {
                    std::cerr << "variant " << v << ": the result depends on how the batch is split\n";
                    return 1;
                  }
                  ++checked;
                }
              }
  std::cout << checked << " plans checked on " << n_variants << " variants\n";
  return checked > 1000 ? 0 : 1;
}
