#include "conv2d_cpu_ffi.h"

// XLA FFI handler of conv2d: checks shapes, splits the batch over XLA's own thread pool, calls the kernel.
#include <algorithm>

#include "jaxsec/conv2d.h"
#include "parallel.h"

namespace ffi = xla::ffi;

namespace jaxsec {
namespace {

ffi::Error Conv2dImpl(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> w, ffi::Buffer<ffi::F32> bias,
                      ffi::Buffer<ffi::F32> gate, int64_t oh, int64_t ow, int64_t stride, int64_t pad_top, int64_t pad_left, int64_t phase,
                      int64_t crop_top, int64_t crop_left, bool relu, ffi::ResultBuffer<ffi::F32> y) {
  const auto xd = x.dimensions(), wd = w.dimensions(), bd = bias.dimensions(), gd = gate.dimensions(), yd = y->dimensions();
  if (xd.size() != 4 || wd.size() != 4 || bd.size() != 1 || yd.size() != 4)
    return ffi::Error::InvalidArgument("conv2d wants x[N,H,W,C], w[KH,KW,C,O], bias[O], y[N,H,W,C]");
  Conv2dPlan plan{xd[0], xd[1], xd[2], xd[3], wd[0], wd[1], wd[3], oh, ow, stride, pad_top, pad_left,
                  phase, yd[1], yd[2], yd[3], crop_top, crop_left, relu, gd.size() == 4};
  if (wd[2] != plan.c || bd[0] != plan.o || plan.o % 16 != 0 || yd[0] != plan.n || phase * phase * plan.out_c > plan.o || stride < 1 ||
      phase < 1 || oh < 1 || ow < 1)
    return ffi::Error::InvalidArgument("conv2d: channels, batch, or the 16-column rule of w do not agree");
  // every output pixel must be covered by some phase, or it would stay unwritten
  if (oh * phase - crop_top < plan.out_h || ow * phase - crop_left < plan.out_w || crop_top < 0 || crop_left < 0)
    return ffi::Error::InvalidArgument("conv2d: the positions do not cover the output");
  if (plan.gated && !std::equal(xd.begin(), xd.end(), gd.begin())) return ffi::Error::InvalidArgument("conv2d: gate and x differ in shape");
  if (plan.n == 0) return ffi::Error::Success();
  static const Conv2dFn run = SelectConv2d();
  ParallelRows(pool, plan.n, 4, Conv2dScratch(plan), [&](float* scratch, int64_t begin, int64_t end) {
    run(plan, x.typed_data(), w.typed_data(), bias.typed_data(), gate.typed_data(), y->typed_data(), scratch, begin, end);
  });
  return ffi::Error::Success();
}

}  // namespace

}  // namespace jaxsec

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecConv2d, jaxsec::Conv2dImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("oh")
                                  .Attr<int64_t>("ow")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad_top")
                                  .Attr<int64_t>("pad_left")
                                  .Attr<int64_t>("phase")
                                  .Attr<int64_t>("crop_top")
                                  .Attr<int64_t>("crop_left")
                                  .Attr<bool>("relu")
                                  .Ret<ffi::Buffer<ffi::F32>>());
