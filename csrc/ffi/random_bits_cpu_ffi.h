#ifndef JAXSEC_RANDOM_BITS_CPU_FFI_H_
#define JAXSEC_RANDOM_BITS_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// (key u32[..., 2], offset u32[..., 2]) -> u32[..., rest]: one stream per leading index, `rest` flattened in row-major order.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecRandomBits);

#endif  // JAXSEC_RANDOM_BITS_CPU_FFI_H_
