#include <pybind11/pybind11.h>

#include "../ffi/boundary_cpu_ffi.h"
#include "../ffi/conv2d_cpu_ffi.h"
#include "../ffi/conv2d_weights_cpu_ffi.h"
#include "../ffi/local_conv2d_cpu_ffi.h"
#include "../ffi/noise_cpu_ffi.h"
#include "../ffi/random_bits_cpu_ffi.h"

namespace py = pybind11;

PYBIND11_MODULE(_cpu, module, py::mod_gil_not_used()) {
  module.doc() = "XLA FFI targets of jaxsec for the CPU.";
  // A handler newer than the XLA that runs would not be refused politely: the whole CPU backend would fail to start.
  module.attr("api_version") = py::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  module.def(
      "registrations",
      [] {
        py::dict targets;
        targets["jaxsec_random_bits"] = py::capsule(reinterpret_cast<void*>(JaxsecRandomBits));
        targets["jaxsec_conv2d"] = py::capsule(reinterpret_cast<void*>(JaxsecConv2d));
        targets["jaxsec_conv2d_weights"] = py::capsule(reinterpret_cast<void*>(JaxsecConv2dWeights));
        targets["jaxsec_boundary_move"] = py::capsule(reinterpret_cast<void*>(JaxsecBoundaryMove));
        targets["jaxsec_local_chain"] = py::capsule(reinterpret_cast<void*>(JaxsecLocalChain));
        targets["jaxsec_settle"] = py::capsule(reinterpret_cast<void*>(JaxsecSettle));
        targets["jaxsec_noise"] = py::capsule(reinterpret_cast<void*>(JaxsecNoise));
        return targets;
      },
      "Target name -> capsule for jax.ffi.register_ffi_target.");
}
