#include "random_bits_cpu_ffi.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "jaxsec/random_bits.h"

namespace ffi = xla::ffi;

namespace {

// Words per task: about 40 microseconds of work, so that scheduling is noise and a task's output stays in the second-level cache.
constexpr size_t kWordsPerTask = size_t{1} << 16;

using Words = ffi::Buffer<ffi::U32>;

std::string describe(ffi::Span<const int64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

// Leading axes of key, offset and output must be the same; key and offset end in an axis of two words.
ffi::Error check(ffi::Span<const int64_t> key, ffi::Span<const int64_t> offset, ffi::Span<const int64_t> out) {
  const bool pair = key.size() >= 1 && key.back() == 2 && std::equal(key.begin(), key.end(), offset.begin(), offset.end());
  const size_t batch_rank = pair ? key.size() - 1 : 0;
  if (!pair || out.size() < batch_rank || !std::equal(key.begin(), key.begin() + batch_rank, out.begin())) {
    return ffi::Error::InvalidArgument("jaxsec_random_bits needs key[..., 2], offset[..., 2] and an output that begins with the same axes; got key" +
                                       describe(key) + ", offset" + describe(offset) + ", output" + describe(out) + ".");
  }
  return ffi::Error::Success();
}

// Words [begin, end) of the whole output, which holds one stream of `per_stream` words after another.
void fill(const uint32_t* key, const uint32_t* offset, uint32_t* out, size_t per_stream, size_t begin, size_t end) {
  while (begin < end) {
    const size_t stream = begin / per_stream, within = begin % per_stream;
    const size_t count = std::min(end - begin, per_stream - within);
    const uint64_t first = (uint64_t{offset[2 * stream + 1]} << 32 | offset[2 * stream]) + within / 4;
    jaxsec::random_bits({key[2 * stream], key[2 * stream + 1]}, first, out + begin, count);
    begin += count;
  }
}

// Returns a future instead of waiting: a handler that blocks on the pool it runs in can deadlock it.
ffi::Future random_bits(ffi::ThreadPool pool, Words key, Words offset, ffi::Result<Words> out) {
  if (ffi::Error error = check(key.dimensions(), offset.dimensions(), out->dimensions()); error.failure()) {
    ffi::Promise failed;
    ffi::Future result(failed);
    failed.SetError(std::move(error));
    return result;
  }
  const size_t total = out->element_count();
  const size_t streams = key.element_count() / 2;
  const size_t per_stream = streams == 0 ? 0 : total / streams;
  const uint32_t *keys = key.typed_data(), *offsets = offset.typed_data();
  uint32_t* words = out->typed_data();

  // Long streams are cut at multiples of kWordsPerTask (hence of four words); short ones are handed out several at a time.
  const size_t pieces = (per_stream + kWordsPerTask - 1) / kWordsPerTask;
  const size_t group = pieces > 1 ? 1 : std::max<size_t>(1, kWordsPerTask / std::max<size_t>(1, per_stream));
  const size_t tasks = pieces > 1 ? streams * pieces : total == 0 ? 0 : (streams + group - 1) / group;
  auto run = [=](size_t task) {
    if (pieces > 1) {
      const size_t start = task / pieces * per_stream, within = task % pieces * kWordsPerTask;
      fill(keys, offsets, words, per_stream, start + within, start + std::min(within + kWordsPerTask, per_stream));
    } else {
      fill(keys, offsets, words, per_stream, task * group * per_stream, std::min((task + 1) * group, streams) * per_stream);
    }
  };
  if (tasks <= 1 || pool.num_threads() <= 1) {
    for (size_t task = 0; task < tasks; ++task) run(task);
    ffi::Promise done;
    ffi::Future result(done);
    done.SetAvailable();
    return result;
  }
  ffi::CountDownPromise done(static_cast<int64_t>(tasks));
  ffi::Future result(done);
  for (size_t task = 0; task < tasks; ++task) {
    pool.Schedule([=]() mutable {
      run(task);
      done.CountDown();
    });
  }
  return result;
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecRandomBits, random_bits,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Words>().Arg<Words>().Ret<Words>());
