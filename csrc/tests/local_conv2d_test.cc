// Every variant that this machine runs: the positions that a window reaches are, bit for bit, those of the whole convolution of the
// changed image, and nothing else is written; the line sums of a dense layer; the move of a window.

#include "jaxsec/local_conv2d.h"

#include <cmath>
#include <algorithm>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "jaxsec/conv2d.h"

#include "random.h"

namespace {

using Floats = std::vector<float>;

// `base` with the windows of `fresh`.
Floats Merged(const jaxsec::LocalPlan& s, Floats base, const Floats& fresh, const std::vector<int32_t>& window) {
  const auto accept = std::make_unique<bool[]>(static_cast<size_t>(s.n));
  std::fill(accept.get(), accept.get() + s.n, true);
  jaxsec::Settle(s.h, s.w, s.c, fresh.data(), window.data(), accept.get(), base.data(), 0, s.n);
  return base;
}

int failures = 0;

void Expect(bool holds, const char* what, int64_t at) {
  if (!holds && failures++ < 5) std::cerr << what << " at " << at << "\n";
}

}  // namespace

int main() {
  std::mt19937 engine(0);
  jaxsec::Conv2dFn whole[3];
  jaxsec::LocalFn local[3];
  const int variants = jaxsec::Conv2dVariants(whole);
  jaxsec::LocalVariants(local);
  const int64_t n = 70, h = 7, w = 9;
  // none, one pixel in each corner, a line, the whole image, and windows that lie outside or are turned round
  const std::vector<int32_t> places[] = {{0, 0, 0, 0}, {0, 1, 0, 1}, {6, 7, 8, 9}, {2, 4, 3, 6}, {0, 7, 4, 5}, {0, 7, 0, 9}, {5, 2, 0, 9}};
  std::vector<int32_t> window;
  for (int64_t i = 0; i < n; ++i) window.insert(window.end(), places[i % 7].begin(), places[i % 7].end());
  int checked = 0;
  for (int64_t c : {1, 3, 16})
    for (int64_t out_c : {1, 16, 33})
      for (int64_t k : {1, 3, 4})
        for (int64_t stride : {1, 2, 5})
          for (int64_t pad : {0, 2})
            for (bool relu : {false, true}) {
              const int64_t kw = k > 1 ? k - 1 : 1, o = (out_c + 15) / 16 * 16;
              const int64_t oh = (h + 2 * pad - k) / stride + 1, ow = (w + pad - kw) / stride + 1;
              const jaxsec::LocalPlan plan{n, h, w, c, k, kw, o, oh, ow, out_c, stride, pad, pad, relu, false};
              const jaxsec::Conv2dPlan full{n, h, w, c, k, kw, o, oh, ow, stride, pad, pad, 1, oh, ow, out_c, 0, 0, relu, false};
              const Floats base = Random(engine, n * h * w * c), fresh = Random(engine, n * h * w * c);
              const Floats weights = Random(engine, k * kw * c * o), bias = Random(engine, o), x = Merged(plan, base, fresh, window);
              for (int v = 0; v < variants; ++v) {
                const auto out = static_cast<size_t>(n * oh * ow * out_c);
                Floats wanted(out), got(out, NAN), scratch(static_cast<size_t>(std::max(jaxsec::Conv2dScratch(full), jaxsec::LocalScratch(plan))));
                whole[v](full, x.data(), weights.data(), bias.data(), nullptr, wanted.data(), scratch.data(), 0, n);
                std::fill(scratch.begin(), scratch.end(), NAN);
                const jaxsec::LocalArrays arrays{base.data(), fresh.data(), window.data(), weights.data(), bias.data(), got.data()};
                for (int64_t cut : {int64_t{0}, int64_t{11}})
                  local[v](plan, arrays, scratch.data(), cut, cut ? n : 11);
                for (int64_t i = 0; i < n * oh * ow; ++i) {
                  const int64_t image = i / (oh * ow), a = i / ow % oh, b = i % ow;
                  const int32_t* at = window.data() + 4 * image;
                  // the window in the frame of zeros, met by the taps of (a, b)?
                  const bool reached = at[0] < at[1] && at[2] < at[3] && a * stride < at[1] + pad && a * stride + k > at[0] + pad &&
                                       b * stride < at[3] + pad && b * stride + kw > at[2] + pad;
                  for (int64_t j = 0; j < out_c; ++j) {
                    const float value = got[static_cast<size_t>(i * out_c + j)];
                    const jaxsec::Reach ra(at[0], at[1], h, stride, pad, k, oh), rb(at[2], at[3], w, stride, pad, kw, ow);
                    const bool inside = a >= ra.first && a < ra.last && b >= rb.first && b < rb.last && at[0] < at[1] && at[2] < at[3];
                    Expect(!reached || inside, "a reached position is left out", i);
                    Expect(inside ? value == wanted[static_cast<size_t>(i * out_c + j)] : std::isnan(value), "wrong value or place", i);
                  }
                }
                ++checked;
              }
            }
  // a dense layer as sums of lines: every line against float64
  const int64_t c = 3, out_c = 10, o = 16;
  const jaxsec::LocalPlan plan{n, h, w, c, 1, w, o, h, 1, out_c, 1, 0, 0, false, true};
  const Floats base = Random(engine, n * h * w * c), fresh = Random(engine, n * h * w * c), weights = Random(engine, h * w * c * o);
  const Floats bias(static_cast<size_t>(o)), x = Merged(plan, base, fresh, window);
  for (int v = 0; v < variants; ++v) {
    Floats got(static_cast<size_t>(n * h * out_c), NAN), scratch(static_cast<size_t>(jaxsec::LocalScratch(plan)));
    local[v](plan, {base.data(), fresh.data(), window.data(), weights.data(), bias.data(), got.data()}, scratch.data(), 0, n);
    for (int64_t i = 0; i < n * h; ++i) {
      const int32_t* at = window.data() + 4 * (i / h);
      const bool inside = i % h >= at[0] && i % h < at[1] && at[2] < at[3];
      for (int64_t j = 0; j < out_c; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < w * c; ++k)
          sum += static_cast<double>(x[static_cast<size_t>(i * w * c + k)]) * weights[static_cast<size_t>((i % h * w * c + k) * o + j)];
        const float value = got[static_cast<size_t>(i * out_c + j)];
        Expect(inside ? std::fabs(value - sum) < 1e-4 : std::isnan(value), "line sum", i);
      }
    }
    ++checked;
  }
  std::cout << checked << " plans checked on " << variants << " variants\n";
  return failures == 0 && checked > 300 ? 0 : 1;
}
