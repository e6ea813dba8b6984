// Every variant that this machine runs, against a naive loop in double: odd sizes, strides, uneven and large pads, gates, splits.

#include "jaxsec/conv2d_weights.h"

#include <cmath>
#include <iostream>
#include <random>
#include <vector>

#include "random.h"

namespace {

void Naive(const jaxsec::Conv2dWeightsPlan& s, const float* x, const float* g, const float* gate, std::vector<double>& dw,
           std::vector<double>& db) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t a = 0; a < s.oh; ++a)
      for (int64_t b = 0; b < s.ow; ++b)
        for (int64_t o = 0; o < s.o; ++o) {
          const int64_t at = ((n * s.oh + a) * s.ow + b) * s.o + o;
          if (s.gated && !(gate[at] > 0.0f)) continue;
          db[static_cast<size_t>(o)] += g[at];
          for (int64_t i = 0; i < s.kh; ++i)
            for (int64_t j = 0; j < s.kw; ++j) {
              const int64_t ih = a * s.stride + i - s.pad_top, iw = b * s.stride + j - s.pad_left;
              if (ih < 0 || ih >= s.h || iw < 0 || iw >= s.w) continue;
              for (int64_t k = 0; k < s.c; ++k)
                dw[static_cast<size_t>(((i * s.kw + j) * s.c + k) * s.o + o)] +=
                    static_cast<double>(x[((n * s.h + ih) * s.w + iw) * s.c + k]) * g[at];
            }
        }
}

bool Close(const std::vector<float>& got, const std::vector<double>& wanted) {
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::fabs(got[i] - wanted[i]) <= 2e-4 * (1 + std::fabs(wanted[i])))) {
      std::cerr << "entry " << i << ": " << got[i] << ", not " << wanted[i] << "\n";
      return false;
    }
  return true;
}

}  // namespace

int main() {
  std::mt19937 engine(0);
  jaxsec::Conv2dWeightsFn variants[3];
  const int n_variants = jaxsec::Conv2dWeightsVariants(variants);
  int checked = 0;
  for (int64_t n : {1, 70})
    for (int64_t c : {1, 3, 16})
      for (int64_t o : {1, 10, 16, 33, 48})
        for (int64_t k : {1, 2, 3, 5})
          for (int64_t stride : {1, 2, 7})
            for (int64_t pad : {0, 2, 6})
              for (bool gated : {false, true}) {
                const int64_t h = 5, w = 6, kw = k > 1 ? k - 1 : 1, pad_left = pad / 2;
                const int64_t oh = (h + pad + pad_left - k) / stride + 1, ow = (w + pad_left - kw) / stride + 1;
                if (oh < 1 || ow < 1 || (n > 1 && (c == 3 || o == 48))) continue;
                const jaxsec::Conv2dWeightsPlan plan{n, h, w, c, k, kw, o, oh, ow, stride, pad, pad_left, gated};
                const auto x = Random(engine, n * h * w * c), g = Random(engine, n * oh * ow * o), gate = Random(engine, n * oh * ow * o);
                const auto size = static_cast<size_t>(k * kw * c * o), width = static_cast<size_t>(o);
                std::vector<double> dw(size), db(width);
                Naive(plan, x.data(), g.data(), gate.data(), dw, db);
                for (int v = 0; v < n_variants; ++v) {
                  std::vector<float> got(size, NAN), sums(width, NAN), whole(size, NAN);
                  std::vector<float> scratch(static_cast<size_t>(Conv2dWeightsScratch(plan)));
                  const int64_t units = Conv2dWeightsUnits(plan), half = units / 2;
                  variants[v](plan, x.data(), g.data(), gate.data(), whole.data(), sums.data(), scratch.data(), 0, units);
                  if (half > 0) variants[v](plan, x.data(), g.data(), gate.data(), got.data(), sums.data(), scratch.data(), 0, half);
                  variants[v](plan, x.data(), g.data(), gate.data(), got.data(), sums.data(), scratch.data(), half, units);
                  if (!Close(got, dw) || !Close(sums, db) || whole != got) {
                    std::cerr << "variant " << v << " n " << n << " c " << c << " o " << o << " k " << k << " stride " << stride
                              << " pad " << pad << " gated " << gated << (whole != got ? ": depends on the split\n" : "\n");
                    return 1;
                  }
                  ++checked;
                }
              }
  std::cout << checked << " plans checked on " << n_variants << " variants\n";
  return checked > 1000 ? 0 : 1;
}
