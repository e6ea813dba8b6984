#define JAXSEC_ISA base
#define JAXSEC_BYTES 16
#include "conv2d_kernel.inc"
#include "conv2d_weights_kernel.inc"
#include "boundary_kernel.inc"
#include "local_conv2d_kernel.inc"
#include "noise_kernel.inc"
