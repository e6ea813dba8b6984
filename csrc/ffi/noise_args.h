// What the CPU and CUDA handlers of the noise share: the check of shapes and types, and the plan that they make.
#pragma once
#include <string>

#include "jaxsec/noise.h"
#include "xla/ffi/api/ffi.h"

namespace jaxsec {

// x [B, d] float32 or uint8, or [B, 0] for none; key, first [B, 2]; sigma [B]; multiply, add [C]; table [2, cells]; y [B, n, d] float32 or bfloat16.
inline xla::ffi::Error PlanNoise(xla::ffi::AnyBuffer x, xla::ffi::Buffer<xla::ffi::U32> key, xla::ffi::Buffer<xla::ffi::U32> first,
                                 xla::ffi::Buffer<xla::ffi::F32> sigma, xla::ffi::Buffer<xla::ffi::F32> multiply,
                                 xla::ffi::Buffer<xla::ffi::F32> add, xla::ffi::Buffer<xla::ffi::U32> table,
                                 xla::ffi::Result<xla::ffi::AnyBuffer> y, int64_t distribution, int64_t inner, NoisePlan& plan, NoiseArrays& arrays) {
  namespace ffi = xla::ffi;
  const auto bad = [](const std::string& what) { return ffi::Error::InvalidArgument("jaxsec_noise: " + what); };
  const auto out = y->dimensions(), in = x.dimensions(), keys = key.dimensions(), firsts = first.dimensions();
  if (out.size() != 3 || in.size() != 2 || keys.size() != 2 || firsts.size() != 2) return bad("y needs 3 axes, x, key and first need 2.");
  const int64_t images = out[0];
  if (in[0] != images || keys[0] != images || firsts[0] != images || keys[1] != 2 || firsts[1] != 2) {
    return bad("x, key and first need a row for each of the images, key and first two words.");
  }
  if (static_cast<int64_t>(sigma.element_count()) != images) return bad("sigma needs one value for each image.");
  if (multiply.element_count() == 0 || multiply.element_count() != add.element_count()) return bad("multiply and add need one value for each channel.");
  if (in[1] != 0 && in[1] != out[2]) return bad("rows of x and y differ in length.");
  if (inner < 1 || distribution < 0 || distribution > 3) return bad("inner must be at least 1, distribution 0 to 3.");
  if (out[2] > int64_t{1} << 34) return bad("a row may have 2^34 values.");
  plan.images = images, plan.samples = out[1], plan.d = out[2];
  plan.channels = static_cast<int64_t>(multiply.element_count()), plan.inner = inner;
  plan.distribution = static_cast<Distribution>(distribution);
  plan.cell_bits = 0;
  if (plan.distribution == Distribution::kDiscreteGaussian) {
    while (plan.cell_bits < 16 && static_cast<int64_t>(table.element_count()) > int64_t{2} << plan.cell_bits) ++plan.cell_bits;
    if (plan.cell_bits == 0 || static_cast<int64_t>(table.element_count()) != int64_t{2} << plan.cell_bits) {
      return bad("the table needs 2 words for each of 2 to 2^16 cells, a power of two.");
    }
  }
  switch (x.element_type()) {
    case ffi::F32: plan.input = Input::kFloat32; break;
    case ffi::U8: plan.input = Input::kUint8; break;
    default: return bad("x must be float32 or uint8.");
  }
  if (in[1] == 0) plan.input = Input::kNone;
  switch (y->element_type()) {
    case ffi::F32: plan.output = Output::kFloat32; break;
    case ffi::BF16: plan.output = Output::kBfloat16; break;
    default: return bad("y must be float32 or bfloat16.");
  }
  arrays = {x.untyped_data(), key.typed_data(), first.typed_data(), sigma.typed_data(), multiply.typed_data(), add.typed_data(), table.typed_data(), y->untyped_data()};
  return ffi::Error::Success();
}

#define JAXSEC_NOISE_BINDING(context)                                                                                          \
  xla::ffi::Ffi::Bind()                                                                                                        \
      .Ctx<context>()                                                                                                          \
      .Arg<xla::ffi::AnyBuffer>()                                                                                              \
      .Arg<xla::ffi::Buffer<xla::ffi::U32>>()                                                                                  \
      .Arg<xla::ffi::Buffer<xla::ffi::U32>>()                                                                                  \
      .Arg<xla::ffi::Buffer<xla::ffi::F32>>()                                                                                  \
      .Arg<xla::ffi::Buffer<xla::ffi::F32>>()                                                                                  \
      .Arg<xla::ffi::Buffer<xla::ffi::F32>>()                                                                                  \
      .Arg<xla::ffi::Buffer<xla::ffi::U32>>()                                                                                  \
      .Ret<xla::ffi::AnyBuffer>()                                                                                              \
      .Attr<int64_t>("distribution")                                                                                           \
      .Attr<int64_t>("inner")

}  // namespace jaxsec
