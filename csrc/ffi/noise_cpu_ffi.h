#ifndef JAXSEC_NOISE_CPU_FFI_H_
#define JAXSEC_NOISE_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

// Buffers as in noise_args.h.
XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecNoise);

#endif  // JAXSEC_NOISE_CPU_FFI_H_
