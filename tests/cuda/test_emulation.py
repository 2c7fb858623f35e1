"""What plays CUDA in the tests is tested itself, on kernels made for that: the grid, its barriers, CuPy's stand-in."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emulated
from emulated import Launch, Load, Memset
from emulated.compiler import CompileError, LaunchError, Module
from emulated.machine import CUDADriverError, CUDARuntimeError
from sharing import Shared

pytestmark = [
    pytest.mark.skipif(emulated.find_compiler() is None, reason="no C++ compiler was found"),
    pytest.mark.filterwarnings("ignore:cupy.cuda.ExternalStream is deprecated"),
]

CALL = np.dtype([("x", np.uint64), ("out", np.uint64), ("n", np.int64), ("factor", np.float64)])
NAMES = (
    "total<float, true>",
    "total<float, false>",
    "coordinates",
    "histogram<float>",
    "half_meet",
    "two_places",
    "unset",
    "votes",
    "sums<float>",
    "sums<long long>",
    "sums<double>",
    "neighbours<true>",
    "neighbours<false>",
    "half_a_warp",
    "part_of_a_warp",
    "warps_apart",
    "warps_ahead<true>",
    "warps_ahead<false>",
)
HALF = ("convert<float16, float>", "convert<float, float16>")
SOURCE = """
struct Call { unsigned long long x, out; long long n; double factor; };

template <class T, bool MEET>
__global__ void __launch_bounds__(256) total(const Call call) {
  __shared__ T sum[256];
  const int i = threadIdx.x;
  sum[i] = ((const T*) call.x)[i] * call.factor;
#pragma unroll
  for (int half = 128; half > 0; half /= 2) {
    if (MEET) __syncthreads();
    if (i < half) sum[i] = sum[i] + sum[i + half];
  }
  if (i == 0) ((T*) call.out)[0] = sum[0];
}

__global__ void coordinates(const Call call) {
  const int i = ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * blockDim.x * blockDim.y;
  ((long long*) call.out)[i + threadIdx.y * blockDim.x + threadIdx.x] =
      1000 * blockIdx.z + 100 * blockIdx.y + 10 * blockIdx.x + blockDim.x * threadIdx.y + threadIdx.x;
}

template <class T>
__global__ void histogram(const Call call) {
  for (int i = threadIdx.x; i < call.n; i += blockDim.x) atomicAdd((T*) call.out + ((const int*) call.x)[i], 1);
}

__global__ void half_meet(const Call call) {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
}

__global__ void two_places(const Call call) {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
  else
    __syncthreads();
}

__global__ void unset(const Call call) {
  __shared__ float x;
  ((float*) call.out)[blockIdx.x * blockDim.x + threadIdx.x] = x;
  __syncthreads();
  x = 3;
}

__global__ void votes(const Call call) {
  const int i = threadIdx.x;
  const unsigned all = 0xffffffff, bits = __ballot_sync(all, ((const float*) call.x)[i] > 0);
  ((unsigned*) call.out)[2 * i] = bits;
  ((unsigned*) call.out)[2 * i + 1] = bits ? 100 * __popc(bits) + __ffs(bits) : 0;
}

// Sums over all earlier lanes, and over all.
template <class T>
__global__ void sums(const Call call) {
  T own = ((const T*) call.x)[threadIdx.x], earlier = own, all = own;
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const T x = __shfl_up_sync(0xffffffff, earlier, lanes);
    if (threadIdx.x % 32 >= lanes) earlier = earlier + x;
    all = all + __shfl_xor_sync(0xffffffff, all, lanes);
  }
  T* out = (T*) call.out + 3 * threadIdx.x;
  out[0] = earlier;
  out[1] = all;
  out[2] = __shfl_sync(0xffffffff, own, 7 * threadIdx.x + 3);
}

template <bool MEET>
__global__ void neighbours(const Call call) {
  __shared__ int x[64];
  x[threadIdx.x] = threadIdx.x;
  if (MEET) __syncwarp();
  ((int*) call.out)[threadIdx.x] = x[threadIdx.x ^ 1];
}

__global__ void half_a_warp(const Call call) {
  if (threadIdx.x % 32 < 16) __syncwarp();
}

__global__ void part_of_a_warp(const Call call) { __ballot_sync(0xffff, 1); }

__global__ void warps_apart(const Call call) {
  if (threadIdx.x < 32) {
    for (int i = 0; i < 10; ++i) __syncwarp();
  } else {
    __syncwarp();
  }
}

// Every warp reads what the next one has written, ten times.
template <bool MEET>
__global__ void warps_ahead(const Call call) {
  __shared__ int x[64];
  x[threadIdx.x] = 0;
  __syncthreads();
  for (int i = 1; i <= 10; ++i) {
    x[threadIdx.x] = i;
    __syncwarp();
    if (MEET) __syncthreads();
    ((int*) call.out)[64 * i - 64 + threadIdx.x] = x[threadIdx.x ^ 32];
    if (MEET) __syncthreads();
    __syncwarp();
  }
}

struct float16 { unsigned short bits; };
__device__ __forceinline__ float load(const float* x) { return *x; }
__device__ __forceinline__ void store(float* x, float value) { *x = value; }

template <class From, class To>
__global__ void convert(const Call call) {
  for (int i = threadIdx.x; i < call.n; i += blockDim.x) store((To*) call.out + i, load((const From*) call.x + i));
}
"""


@pytest.fixture(scope="module")
def module():
    return Module(SOURCE, NAMES + HALF)


def argument(x, out, factor=1.0):
    return np.array((x.ctypes.data, out.ctypes.data, x.size, factor), CALL)


def test_threads_meet_and_the_argument_comes_by_value(module, rng):
    x, out = rng.integers(-100, 100, 256).astype(np.float32), np.zeros(1, np.float32)
    for _ in range(20):
        given = argument(x, out, factor=0.5)
        module.launch("total<float, true>", (1,), (256,), given)
        assert out[0] == 0.5 * x.sum() and given.tobytes() == argument(x, out, factor=0.5).tobytes()


def test_a_missing_barrier_shows(module, rng):
    x, out = rng.integers(1, 100, 256).astype(np.float32), np.zeros(1, np.float32)
    right = []
    for seed in range(10):
        module.launch("total<float, false>", (1,), (256,), argument(x, out), seed)
        right.append(out[0] == x.sum())
    assert not all(right)


@pytest.mark.parametrize("seed", range(6))
def test_every_thread_of_every_block_runs_once(module, seed):
    out = np.zeros((2, 3, 5, 2, 4), np.int64)
    module.launch("coordinates", (5, 3, 2), (4, 2), argument(out, out), seed)
    z, y, x, thread = np.ogrid[:2, :3, :5, :8]
    np.testing.assert_array_equal(out.reshape(2, 3, 5, 8), 1000 * z + 100 * y + 10 * x + thread)


def test_atomics_add(module, rng):
    x, out = rng.integers(0, 7, 1000, np.int32), np.zeros(7, np.float32)
    module.launch("histogram<float>", (1,), (64,), argument(x, out))
    np.testing.assert_array_equal(out, np.bincount(x))


def test_threads_that_do_not_meet_are_an_error_and_the_next_launch_works(module, rng):
    x, out = rng.integers(-100, 100, 256).astype(np.float32), np.zeros(1, np.float32)
    for _ in range(5):
        with pytest.raises(LaunchError, match=r"half_meet: block .* waits at the barrier kernels.cu:\d+ .* its end"):
            module.launch("half_meet", (2,), (64,), argument(x, out))
        with pytest.raises(LaunchError, match=r"two_places: .* kernels.cu:\d+ while thread \d+ is at kernels.cu:\d+"):
            module.launch("two_places", (2,), (64,), argument(x, out))
        module.launch("total<float, true>", (1,), (256,), argument(x, out))
        assert out[0] == x.sum()


def test_a_warp_votes_and_shuffles(module, rng):
    x, out = rng.normal(size=96).astype(np.float32), np.zeros((3, 32, 2), np.uint32)
    module.launch("votes", (1,), (96,), argument(x, out))
    for warp, bits in enumerate((x > 0).reshape(3, 32)):
        packed = np.packbits(bits, bitorder="little").view("<u4")[0]
        assert (out[warp] == (packed, 100 * bits.sum() + np.flatnonzero(bits)[0] + 1)).all()
    for name, dtype in {"float": "f4", "long long": "i8", "double": "f8"}.items():
        x = rng.integers(-(2**20), 2**20, (3, 32)).astype(dtype)
        out = np.zeros((3, 32, 3), dtype)
        module.launch(f"sums<{name}>", (1,), (96,), argument(x, out))
        np.testing.assert_array_equal(out[..., 0], np.cumsum(x, 1))
        np.testing.assert_array_equal(out[..., 1], np.broadcast_to(x.sum(1, keepdims=True), (3, 32)))
        np.testing.assert_array_equal(out[..., 2], x[:, (7 * np.arange(32) + 3) % 32])


def test_a_missing_barrier_of_a_warp_shows(module):
    out, wrong = np.zeros(64, np.int32), 0
    for seed in range(10):
        module.launch("neighbours<true>", (1,), (64,), argument(out, out), seed)
        np.testing.assert_array_equal(out, np.arange(64) ^ 1)
        module.launch("neighbours<false>", (1,), (64,), argument(out, out), seed)
        wrong += (out != np.arange(64) ^ 1).any()
    assert wrong == 10


def test_one_warp_runs_ahead_of_another_unless_a_barrier_holds_it(module):
    out, seen = np.zeros((10, 64), np.int32), set()
    for seed in range(20):
        module.launch("warps_ahead<true>", (1,), (64,), argument(out, out), seed)
        np.testing.assert_array_equal(out, np.broadcast_to(np.arange(1, 11)[:, None], (10, 64)))
        module.launch("warps_ahead<false>", (1,), (64,), argument(out, out), seed)
        seen |= set((out - np.arange(1, 11)[:, None]).ravel().tolist())
    assert min(seen) <= -5 and max(seen) >= 5


def test_a_warp_that_does_not_meet_is_an_error_but_others_need_not_wait(module):
    out = np.zeros(1, np.float32)
    with pytest.raises(LaunchError, match=r"half_a_warp: block .* waits at the barrier kernels.cu:\d+ .* its end"):
        module.launch("half_a_warp", (1,), (64,), argument(out, out))
    with pytest.raises(LaunchError, match=r"part_of_a_warp: block .* a ballot or shuffle of part of a warp"):
        module.launch("part_of_a_warp", (1,), (64,), argument(out, out))
    module.launch("warps_apart", (1,), (64,), argument(out, out))


def test_shared_memory_is_not_zero_at_first_and_no_block_sees_that_of_another(module):
    out = np.zeros((3, 32), np.float32)
    module.launch("unset", (3,), (32,), argument(out, out))
    assert np.isnan(out).all()


BEYOND = """
import sys
import numpy as np
from compiler import Module

SOURCE = '''
__global__ void beyond(const long long n) {
  __shared__ float shared[4];
  float local[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) %s[i] = i;
  if (local[1] + shared[2] == 7) __syncthreads();
}
'''
kernel = Module(SOURCE % sys.argv[1], ["beyond"])
for n in (4, 5):
    kernel.launch("beyond", (1,), (1,), np.int64(n))
    print(n, flush=True)
"""


@pytest.mark.parametrize("array", ["local", "shared"])
def test_an_index_beyond_an_array_of_a_kernel_ends_the_process(array):
    folder = Path(emulated.__file__).parent
    done = subprocess.run([sys.executable, "-c", BEYOND, array], cwd=folder, capture_output=True, text=True)
    assert done.returncode < 0 and done.stdout == "4\n", done.stderr


def test_half_precision_is_that_of_numpy(module, rng):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wide = np.empty(every.size, np.float32)
    module.launch("convert<float16, float>", (1,), (32,), argument(every, wide))
    np.testing.assert_array_equal(wide, every.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(every))
    middles = (wide[:0x7C00] + wide[1:0x7C01]) / 2
    around = [np.nextafter(middles, np.float32(to)) for to in (0, np.inf)]
    any_bits = rng.integers(0, 2**32, 10**6, np.uint32).view(np.float32)
    x = np.concatenate([middles, -middles, *around, any_bits, wide])
    out = np.empty(x.size, np.float16)
    module.launch("convert<float, float16>", (1,), (32,), argument(x, out))
    with np.errstate(over="ignore", under="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(out, expected)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(out[numbers]), np.signbit(expected[numbers]))


def test_what_is_wrong_with_a_source_or_an_argument_is_said(module):
    with pytest.raises(CompileError, match=r"kernels.cu:2:.*nonsense"):
        Module("\nnonsense", ["f"])
    with pytest.raises(LaunchError, match="got an argument of 8 bytes, the kernel's has 32"):
        module.launch("half_meet", (1,), (1,), np.zeros((), np.dtype([("x", np.uint64)])))


@pytest.fixture
def cupy():
    with emulated.installed():
        yield sys.modules["cupy"]


def kernel_of(cupy, name="total<float, true>"):
    return cupy.RawModule(code=SOURCE, options=("--std=c++17",), name_expressions=NAMES).get_function(name)


def total(cupy, kernel, x):
    """The sum of a device array by a kernel on the current stream."""
    out = cupy.zeros(1, np.float32)
    kernel((1,), (256,), (np.array([(x.data.ptr, out.data.ptr, x.size, 1)], CALL),))
    return float(out[0])


def test_launches_go_to_the_current_device_and_stream(cupy):
    emulated.machine.devices = 2
    with cupy.cuda.Device(1) as device, cupy.cuda.ExternalStream(0x123, 1) as stream:
        assert cupy.cuda.get_current_stream().ptr == stream.ptr == 0x123
        kernel = kernel_of(cupy)
        x = cupy.ones(256, np.float32)
        cupy.cuda.runtime.memsetAsync(x.data.ptr, 0, 4 * 128, stream.ptr)
        assert device.attributes["MultiProcessorCount"] == 1 and total(cupy, kernel, x) == 128
    assert cupy.cuda.Device().id == 0 and cupy.cuda.get_current_stream().ptr == 0
    total(cupy, kernel, x)
    load, memset, launch, *_ = emulated.machine.log
    assert load == Load(NAMES, 1, ("--std=c++17",)) and memset == Memset(x.data.ptr, 0, 512, 1, 0x123)
    assert (launch.name, launch.grid, launch.block) == ("total<float, true>", (1, 1, 1), (256, 1, 1))
    assert (launch.device, launch.stream, launch.argument["x"]) == (1, 0x123, x.data.ptr)
    assert [record.device for record in emulated.machine.logged(Load)] == [1, 0]  # CuPy loads for each device, once
    assert [(record.device, record.stream) for record in emulated.machine.logged(Launch)][1:] == [(0, 0)]
    with pytest.raises(CUDARuntimeError, match="InvalidDevice"), cupy.cuda.Device(2):
        pass
    with pytest.raises(RuntimeError, match="stream of device 1"), cupy.cuda.ExternalStream(0x123, 1):
        pass


def test_what_a_capture_forbids_is_an_error(cupy):
    kernel, x = kernel_of(cupy), cupy.ones(256, np.float32)
    emulated.machine.capturing = 0x123
    with cupy.cuda.ExternalStream(0x123):
        assert total(cupy, kernel, x) == 256
        with pytest.raises(CUDADriverError, match="not permitted when stream is capturing"):
            cupy.RawModule(code=SOURCE + " ", name_expressions=NAMES).get_function(NAMES[0])
    with pytest.raises(CUDADriverError, match="another stream"):
        total(cupy, kernel, x)
    with pytest.raises(CUDARuntimeError, match="another stream"):
        cupy.cuda.runtime.memsetAsync(x.data.ptr, 0, 4, 0)


def test_arrays_of_a_device_are_hidden_from_numpy(cupy):
    emulated.machine.devices = 2
    x = cupy.array(np.arange(6.0).reshape(2, 3), np.float32)
    for use in (np.asarray, lambda x: x + np.ones(3), lambda x: np.ones(3) + x):
        with pytest.raises(TypeError):
            use(x)
    assert not hasattr(x.flags, "writeable") and x.flags.c_contiguous and not x[:, 1:].flags.c_contiguous
    assert (x.shape, x.dtype, x.device.id) == ((2, 3), np.float32, 0) and x.reshape(-1).data.ptr == x.data.ptr
    x[...] = x != 2
    assert x.get().tolist() == [[1, 1, 0], [1, 1, 1]] and int(x.max()) == 1
    assert cupy.may_share_memory(x[0], x) and not cupy.may_share_memory(x[0], x[1])
    with cupy.cuda.Device(1), pytest.raises(ValueError, match="while device 1 is current"):
        x + x
    with cupy.cuda.Device(1):
        assert cupy.asarray(x).device.id == 1
    assert cupy.asarray(x) is x and cupy.array(x).data.ptr != x.data.ptr


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_dlpack_gives_the_same_memory(cupy, dtype, versioned):
    x = cupy.ones(4, dtype)
    for other in (x, Shared(x.get(), device_type=2, versioned=versioned)):
        taken = cupy.from_dlpack(other)
        assert isinstance(taken, cupy.ndarray) and taken.__dlpack_device__() == (2, 0)
        assert taken.dtype == dtype and taken.get().tolist() == [1] * 4
    with pytest.raises(TypeError, match="CPU arrays"):
        cupy.from_dlpack(np.ones(3))
