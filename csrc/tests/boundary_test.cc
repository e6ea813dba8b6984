// Every variant that this machine runs, against a bisection in float64: odd sizes, both norms, boxes of every shape, useless planes.

#include "jaxsec/boundary.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

namespace {

using Row = std::vector<double>;

// d(p) of boundary.h: the step along -sign(f) w whose length is found by bisection.
Row Towards(const Row& p, const Row& w, double value, const Row& lo, const Row& hi, bool l2, double& norm) {
  const size_t n = p.size();
  const double side = value > 0 ? -1 : value < 0 ? 1 : 0;
  Row step(n);
  const auto at = [&](double t) {
    double reached = 0;
    for (size_t k = 0; k < n; ++k) {
      const double direction = side * w[k], room = std::max(0.0, direction > 0 ? hi[k] - p[k] : p[k] - lo[k]);
      step[k] = direction == 0 ? 0 : std::copysign(std::min(l2 ? t * std::fabs(w[k]) : t, room), direction);
      reached += std::fabs(step[k] * w[k]);
    }
    return reached;
  };
  double low = 0, high = 1e6;
  for (int i = 0; i < 200; ++i) (at((low + high) / 2) < std::fabs(value) ? low : high) = (low + high) / 2;
  at(high);
  norm = 0;
  for (double v : step) norm = l2 ? norm + v * v : std::max(norm, std::fabs(v));
  if (l2) norm = std::sqrt(norm);
  return step;
}

}  // namespace

int main() {
  std::mt19937 engine(0);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform;
  jaxsec::BoundaryFn variants[3];
  const int n_variants = jaxsec::BoundaryVariants(variants);
  int checked = 0;
  for (int64_t d : {1, 7, 16, 33, 200})
    for (bool l2 : {false, true})
      for (int box = 0; box < 4; ++box) {
        const int64_t rows = 12, lo_rows = box & 1 ? rows : 1, columns = box & 2 ? d : 1;
        const jaxsec::BoundaryPlan plan{rows, d, lo_rows, columns, 1, 1, l2};
        std::vector<float> x, x0, w, terms, lo(static_cast<size_t>(lo_rows * columns), 0.0f), hi{1.0f};
        for (float& v : lo) v = 0.1f * uniform(engine);
        for (int64_t i = 0; i < rows * d; ++i) {
          x.push_back(0.1f + 0.9f * uniform(engine));
          x0.push_back(0.1f + 0.9f * uniform(engine));
          // rows 9, 10, 11: a plane without slope, one with a NaN, one with few slopes
          const int64_t row = i / d;
          w.push_back(row == 9 ? 0.0f : row == 10 && i % d == d / 2 ? NAN : row == 11 && i % 3 ? 0.0f : 1e3f * normal(engine));
        }
        for (int64_t r = 0; r < rows; ++r) {
          // rows 7, 8: out of reach, and already there
          const float value = r == 7 ? 1e9f : r == 8 ? 0.0f : 100.0f * normal(engine) * std::sqrt(static_cast<float>(d));
          for (float v : {value, 0.1f, 1.05f}) terms.push_back(v);
        }
        for (int v = 0; v < n_variants; ++v) {
          std::vector<float> y(x.size(), NAN), scratch(static_cast<size_t>(jaxsec::BoundaryScratch(plan)));
          const jaxsec::BoundaryArrays arrays{x.data(), x0.data(), w.data(), terms.data(), lo.data(), hi.data(), y.data()};
          variants[v](plan, arrays, scratch.data(), 0, 5);
          variants[v](plan, arrays, scratch.data(), 5, rows);
          for (int64_t r = 0; r < rows; ++r) {
            const auto size = static_cast<size_t>(d);
            Row a(size), b(size), u(size), low(size), high(size, 1.0);
            double value = terms[static_cast<size_t>(3 * r)], from_clean = value;
            bool usable = false, bad = false;
            for (size_t k = 0; k < size; ++k) {
              const size_t i = static_cast<size_t>(r) * size + k;
              a[k] = x[i], b[k] = x0[i], u[k] = w[i];
              low[k] = lo[static_cast<size_t>((lo_rows == 1 ? 0 : r) * columns) + (columns == 1 ? 0 : k)];
              from_clean += u[k] * (b[k] - a[k]);
              usable = usable || u[k] != 0;
              bad = bad || !std::isfinite(u[k]);
            }
            double n1, n2;
            const Row d1 = Towards(a, u, value, low, high, l2, n1), d2 = Towards(b, u, from_clean, low, high, l2, n2);
            const double alpha = std::min(std::max(n1, 1e-8) / (std::max(n1, 1e-8) + std::max(n2, 1e-8)), 0.1);
            for (size_t k = 0; k < size; ++k) {
              const double moved = (a[k] + 1.05 * d1[k]) * (1 - alpha) + (b[k] + 1.05 * d2[k]) * alpha;
              const double wanted = usable && !bad ? std::clamp(moved, low[k], high[k]) : a[k] + 0.5 * (b[k] - a[k]);
              const float got = y[static_cast<size_t>(r) * size + k];
              if (!(std::fabs(got - wanted) <= 2e-4)) {
                std::cerr << "variant " << v << " d " << d << " l2 " << l2 << " box " << box << " row " << r << " entry " << k << ": " << got
                          << ", not " << wanted << "\n";
                return 1;
              }
              ++checked;
            }
          }
        }
      }
  std::cout << checked << " entries checked on " << n_variants << " variants\n";
  return checked > 10000 ? 0 : 1;
}
