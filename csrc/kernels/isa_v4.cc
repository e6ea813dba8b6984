#define JAXSEC_ISA x86_64_v4
#define JAXSEC_BYTES 64
#include "conv2d_kernel.inc"
#include "conv2d_weights_kernel.inc"
#include "boundary_kernel.inc"
#include "local_conv2d_kernel.inc"
#include "noise_kernel.inc"
