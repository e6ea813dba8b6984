#ifndef JAXSEC_BOUNDARY_CPU_FFI_H_
#define JAXSEC_BOUNDARY_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// (x, x0, w f32[..., D], terms f32[..., 3] (value, alpha_max, eta), lo, hi f32[..., 1 or D]) -> y f32[..., D]; attribute l2.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecBoundaryMove);

#endif  // JAXSEC_BOUNDARY_CPU_FFI_H_
