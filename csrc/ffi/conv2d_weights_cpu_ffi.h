#ifndef JAXSEC_CONV2D_WEIGHTS_CPU_FFI_H_
#define JAXSEC_CONV2D_WEIGHTS_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// (x f32[N,H,W,C], g f32[N,H',W',O], gate f32[N,H',W',O] or f32[0]) -> dw f32[KH,KW,C,O], db f32[O]; as in jaxsec/conv2d_weights.h.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecConv2dWeights);

#endif  // JAXSEC_CONV2D_WEIGHTS_CPU_FFI_H_
