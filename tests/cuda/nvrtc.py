"""NVRTC, CUDA's run-time compiler, through its C interface: it compiles for a named architecture without any GPU."""

import ctypes
import functools
import importlib.util
import os
from pathlib import Path


@functools.cache
def find():
    """The compiler of the wheel `nvidia-cuda-nvrtc` or of an installed toolkit; None if there is none."""
    found = importlib.util.find_spec("nvidia")
    folders = [*(found.submodule_search_locations if found else []), os.environ.get("CUDA_PATH", "/usr/local/cuda")]
    for folder in folders:
        for path in sorted(Path(folder).rglob("libnvrtc.so*")):
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # for another system
                continue
    return None


def compile_for(architecture, code, names, options):
    """Compile to machine code; return its size and the mangled name of every kernel, or raise with the log."""
    nvrtc, program = find(), ctypes.c_void_p()
    check = functools.partial(_check, nvrtc)
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None))
    try:
        for name in names:
            check(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        options = [option.encode() for option in (*options, f"--gpu-architecture={architecture}")]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            raise RuntimeError(f"{architecture}: {_text(nvrtc, program)}")
        lowered = {}
        for name in names:
            mangled = ctypes.c_char_p()
            check(nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(mangled)))
            lowered[name] = mangled.value.decode()
        size = ctypes.c_size_t()
        check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        return size.value, lowered, _text(nvrtc, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _check(nvrtc, status):
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(nvrtc.nvrtcGetErrorString(status).decode())


def _text(nvrtc, program):
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.value.decode(errors="replace")
