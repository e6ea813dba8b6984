#include "boundary_cpu_ffi.h"

// XLA FFI handler of the boundary move: any number of leading axes, split by rows over XLA's own thread pool.
#include "jaxsec/boundary.h"
#include "parallel.h"

namespace ffi = xla::ffi;

namespace jaxsec {
namespace {

using F32 = ffi::Buffer<ffi::F32>;

int64_t Rows(const F32& a) { return a.dimensions().back() == 0 ? 0 : static_cast<int64_t>(a.element_count()) / a.dimensions().back(); }

ffi::Error BoundaryImpl(ffi::ThreadPool pool, F32 x, F32 x0, F32 w, F32 terms, F32 lo, F32 hi, bool l2, ffi::ResultBuffer<ffi::F32> y) {
  for (const F32* a : {&x, &x0, &w, &terms, &lo, &hi})
    if (a->dimensions().size() < 2) return ffi::Error::InvalidArgument("boundary_move wants arrays of rows: at least two axes");
  const BoundaryPlan plan{Rows(x), x.dimensions().back(), Rows(lo), lo.dimensions().back(), Rows(hi), hi.dimensions().back(), l2};
  if (plan.rows == 0) return ffi::Error::Success();
  const auto fits = [&](int64_t rows, int64_t columns) {
    return rows > 0 && plan.rows % rows == 0 && (columns == 1 || columns == plan.d);
  };
  if (x0.element_count() != x.element_count() || w.element_count() != x.element_count() || y->element_count() != x.element_count() ||
      static_cast<int64_t>(terms.element_count()) != 3 * plan.rows || !fits(plan.lo_rows, plan.lo_columns) ||
      !fits(plan.hi_rows, plan.hi_columns))
    return ffi::Error::InvalidArgument("boundary_move: x, x0, w [..., D], terms [..., 3], lo and hi [..., 1 or D] do not agree");
  static const BoundaryFn run = [] {
    BoundaryFn variants[3];
    BoundaryVariants(variants);
    return variants[0];
  }();
  const BoundaryArrays arrays{x.typed_data(), x0.typed_data(), w.typed_data(), terms.typed_data(), lo.typed_data(), hi.typed_data(),
                              y->typed_data()};
  // rows take different numbers of Newton steps, so there are many more tasks than workers
  ParallelRows(pool, plan.rows, 8, BoundaryScratch(plan),
               [&](float* scratch, int64_t begin, int64_t end) { run(plan, arrays, scratch, begin, end); });
  return ffi::Error::Success();
}

}  // namespace

}  // namespace jaxsec

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecBoundaryMove, jaxsec::BoundaryImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<bool>("l2")
                                  .Ret<ffi::Buffer<ffi::F32>>());
