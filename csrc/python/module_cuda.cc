#include <pybind11/pybind11.h>

#include "../ffi/noise_cuda_ffi.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
  module.doc() = "XLA FFI targets of jaxsec for CUDA devices.";
  module.attr("api_version") = py::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  module.def(
      "registrations",
      [] {
        py::dict targets;
        targets["jaxsec_noise"] = py::capsule(reinterpret_cast<void*>(JaxsecNoiseCuda));
        return targets;
      },
      "Target name -> capsule for jax.ffi.register_ffi_target.");
}
