#ifndef JAXSEC_CONV2D_CPU_FFI_H_
#define JAXSEC_CONV2D_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// (x f32[N,H,W,C], w f32[KH,KW,C,O], bias f32[O], gate f32[N,H,W,C] or f32[0]) -> y f32[N,H',W',C']; attributes as in jaxsec/conv2d.h.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecConv2d);

#endif  // JAXSEC_CONV2D_CPU_FFI_H_
