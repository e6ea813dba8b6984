#include "conv2d_weights_cpu_ffi.h"

// XLA FFI handler of the convolution's weight gradient: checks shapes, splits the rows of the result over XLA's own thread pool.
#include <algorithm>

#include "jaxsec/conv2d_weights.h"
#include "parallel.h"

namespace ffi = xla::ffi;

namespace jaxsec {
namespace {

ffi::Error Conv2dWeightsImpl(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> g, ffi::Buffer<ffi::F32> gate,
                             int64_t stride, int64_t pad_top, int64_t pad_left, ffi::ResultBuffer<ffi::F32> dw,
                             ffi::ResultBuffer<ffi::F32> db) {
  const auto xd = x.dimensions(), gd = g.dimensions(), ad = gate.dimensions(), wd = dw->dimensions(), bd = db->dimensions();
  if (xd.size() != 4 || gd.size() != 4 || wd.size() != 4 || bd.size() != 1)
    return ffi::Error::InvalidArgument("conv2d_weights wants x[N,H,W,C], g[N,H,W,O], dw[KH,KW,C,O], db[O]");
  const Conv2dWeightsPlan plan{xd[0], xd[1], xd[2], xd[3], wd[0], wd[1], wd[3], gd[1], gd[2], stride, pad_top, pad_left, ad.size() == 4};
  if (gd[0] != plan.n || wd[2] != plan.c || gd[3] != plan.o || bd[0] != plan.o || stride < 1 || pad_top < 0 || pad_left < 0 ||
      plan.oh < 1 || plan.ow < 1 || plan.Rows() < 1)
    return ffi::Error::InvalidArgument("conv2d_weights: the shapes of x, g and the result do not agree");
  if (plan.gated && !std::equal(gd.begin(), gd.end(), ad.begin()))
    return ffi::Error::InvalidArgument("conv2d_weights: gate and g differ in shape");
  static const Conv2dWeightsFn run = SelectConv2dWeights();
  ParallelRows(pool, Conv2dWeightsUnits(plan), 1, Conv2dWeightsScratch(plan), [&](float* scratch, int64_t begin, int64_t end) {
    run(plan, x.typed_data(), g.typed_data(), gate.typed_data(), dw->typed_data(), db->typed_data(), scratch, begin, end);
  });
  return ffi::Error::Success();
}

}  // namespace

}  // namespace jaxsec

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecConv2dWeights, jaxsec::Conv2dWeightsImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad_top")
                                  .Attr<int64_t>("pad_left")
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
