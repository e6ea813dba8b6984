#pragma once
#include <cuda_runtime.h>

#include "xla/ffi/api/ffi.h"

XLA_FFI_DECLARE_HANDLER_SYMBOL(JaxsecNoiseCuda);
