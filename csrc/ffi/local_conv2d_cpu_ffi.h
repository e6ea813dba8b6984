#ifndef JAXSEC_LOCAL_CONV2D_CPU_FFI_H_
#define JAXSEC_LOCAL_CONV2D_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// Convolutions one after the other, as in jaxsec/local_conv2d.h, over images that stay in the cache in between.
// (base, fresh f32[N,H,W,C], window s32[N,4], then for each: base f32[N,H',W',C'], w f32[KH,KW,C,O] or f32[H',KH,KW,C,O], bias f32[O])
// -> for each: fresh f32[N,H',W',C'], written where the window reaches, and its window s32[N,4]; then, if the last one has lines, their
// sum f32[N,C']. Attributes: an entry for each.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecLocalChain);

// (accept pred[N], then any number of times: base, fresh f32[N,H,W,C], window s32[N,4]) -> each base, in place.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecSettle);

#endif  // JAXSEC_LOCAL_CONV2D_CPU_FFI_H_
