#include <pybind11/pybind11.h>

#include "../ffi/random_bits_cpu_ffi.h"

namespace py = pybind11;

PYBIND11_MODULE(_cpu, module, py::mod_gil_not_used()) {
  module.doc() = "XLA FFI targets of jaxsec for the CPU.";
  module.def(
      "registrations",
      [] {
        py::dict targets;
        targets["jaxsec_random_bits"] = py::capsule(reinterpret_cast<void*>(JaxsecRandomBits));
        return targets;
      },
      "Target name -> capsule for jax.ffi.register_ffi_target.");
}
