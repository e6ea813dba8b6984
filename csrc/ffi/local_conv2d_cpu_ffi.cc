#include "local_conv2d_cpu_ffi.h"

// XLA FFI handlers of local convolutions and of moving windows: check shapes, split the batch over XLA's own thread pool.
#include <algorithm>
#include <optional>
#include <vector>

#include "jaxsec/local_conv2d.h"
#include "parallel.h"

namespace ffi = xla::ffi;

namespace jaxsec {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using Numbers = ffi::Span<const int64_t>;
using Shape = ffi::Span<const int64_t>;

bool Same(Shape a, Shape b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

bool Windows(const S32& window, int64_t n) {
  const auto d = window.dimensions();
  return d.size() == 2 && d[0] == n && d[1] == 4;
}

struct Stage {
  LocalPlan plan;
  LocalArrays arrays;
  const float* remembered;
  int32_t* reached;
};

// One convolution of images of shape `in`; nothing where the shapes do not agree.
std::optional<LocalPlan> Plan(Shape in, Shape out, Shape w, Shape bias, int64_t stride, int64_t pad_top, int64_t pad_left, bool relu) {
  if (in.size() != 4 || out.size() != 4 || (w.size() != 4 && w.size() != 5) || bias.size() != 1) return std::nullopt;
  const bool lines = w.size() == 5;
  const int64_t* k = w.begin() + (lines ? 1 : 0);
  const LocalPlan plan{in[0], in[1], in[2], in[3], k[0], k[1], k[3], out[1], out[2], out[3], stride, pad_top, pad_left, relu, lines};
  const bool fits = k[2] == plan.c && bias[0] == plan.o && plan.o % 16 == 0 && out[0] == plan.n && plan.out_c <= plan.o && stride >= 1 &&
                    plan.oh >= 1 && plan.ow >= 1 && pad_top >= 0 && pad_left >= 0 && (!lines || w[0] == plan.oh);
  return fits ? std::optional(plan) : std::nullopt;
}

ffi::Error LocalChainImpl(ffi::ThreadPool pool, F32 base, F32 fresh, S32 window, Numbers stride, Numbers pad_top, Numbers pad_left,
                          Numbers relu, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const size_t n_stages = stride.size();
  const auto wrong = [] { return ffi::Error::InvalidArgument("local_chain: shapes, lines, or the 16-column rule of w do not agree"); };
  if (base.dimensions().size() != 4 || !Same(base.dimensions(), fresh.dimensions()) || !Windows(window, base.dimensions()[0]) ||
      n_stages == 0 || pad_top.size() != n_stages || pad_left.size() != n_stages || relu.size() != n_stages ||
      args.size() != 3 * n_stages || rets.size() < 2 * n_stages)
    return wrong();
  std::vector<Stage> stages;
  Shape in = base.dimensions();
  LocalArrays arrays{base.typed_data(), fresh.typed_data(), window.typed_data(), nullptr, nullptr, nullptr};
  for (size_t i = 0; i < n_stages; ++i) {
    const auto old = args.get<F32>(3 * i), w = args.get<F32>(3 * i + 1), bias = args.get<F32>(3 * i + 2);
    auto y = rets.get<F32>(2 * i);
    auto reached = rets.get<S32>(2 * i + 1);
    if (!old || !w || !bias || !y || !reached) return wrong();
    const Shape out = (*y)->dimensions();
    const auto plan = Plan(in, out, w->dimensions(), bias->dimensions(), stride[i], pad_top[i], pad_left[i], relu[i] != 0);
    if (!plan || !Same(out, old->dimensions()) || !Windows(**reached, plan->n)) return wrong();
    arrays.w = w->typed_data(), arrays.bias = bias->typed_data(), arrays.y = (*y)->typed_data();
    stages.push_back({*plan, arrays, old->typed_data(), (*reached)->typed_data()});
    arrays.base = old->typed_data(), arrays.fresh = arrays.y, arrays.window = stages.back().reached;
    in = out;
  }
  float* total = nullptr;
  if (rets.size() > 2 * n_stages) {
    auto z = rets.get<F32>(2 * n_stages);
    if (!z || !stages.back().plan.lines || (*z)->element_count() != static_cast<size_t>(in[0] * in[3])) return wrong();
    total = (*z)->typed_data();
  }
  if (in[0] == 0) return ffi::Error::Success();
  static const LocalFn run = [] {
    LocalFn variants[3];
    LocalVariants(variants);
    return variants[0];
  }();
  int64_t scratch_floats = 0;
  for (const Stage& s : stages) scratch_floats = std::max(scratch_floats, LocalScratch(s.plan));
  ParallelRows(pool, in[0], 4, scratch_floats, [&](float* scratch, int64_t begin, int64_t end) {
    for (const Stage& s : stages) {
      run(s.plan, s.arrays, scratch, begin, end);
      LocalReach(s.plan, s.arrays.window, s.reached, begin, end);
    }
    const Stage& last = stages.back();
    if (total) SumLines(last.plan, last.remembered, last.arrays.y, last.reached, total, begin, end);
  });
  return ffi::Error::Success();
}

ffi::Error SettleImpl(ffi::Buffer<ffi::PRED> accept, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const auto wrong = [] { return ffi::Error::InvalidArgument("settle wants accept[N], then base, fresh [N,H,W,C] and window[N,4] each time"); };
  if (accept.dimensions().size() != 1 || args.size() != 3 * rets.size()) return wrong();
  for (size_t i = 0; i < rets.size(); ++i) {
    const auto base = args.get<F32>(3 * i), fresh = args.get<F32>(3 * i + 1);
    const auto window = args.get<S32>(3 * i + 2);
    auto y = rets.get<F32>(i);
    if (!base || !fresh || !window || !y) return wrong();
    const Shape d = base->dimensions();
    if (d.size() != 4 || !Same(d, fresh->dimensions()) || !Same(d, (*y)->dimensions()) || !Windows(*window, d[0]) ||
        accept.dimensions()[0] != d[0])
      return wrong();
    float* to = (*y)->typed_data();
    if (to != base->typed_data()) std::copy(base->typed_data(), base->typed_data() + base->element_count(), to);  // XLA did not alias them
    Settle(d[1], d[2], d[3], fresh->typed_data(), window->typed_data(), accept.typed_data(), to, 0, d[0]);
  }
  return ffi::Error::Success();
}

}  // namespace

}  // namespace jaxsec

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecLocalChain, jaxsec::LocalChainImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Attr<ffi::Span<const int64_t>>("stride")
                                  .Attr<ffi::Span<const int64_t>>("pad_top")
                                  .Attr<ffi::Span<const int64_t>>("pad_left")
                                  .Attr<ffi::Span<const int64_t>>("relu")
                                  .RemainingArgs()
                                  .RemainingRets());

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecSettle, jaxsec::SettleImpl,
                              ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::PRED>>().RemainingArgs().RemainingRets());
