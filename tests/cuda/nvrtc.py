"""NVRTC, CUDA's run-time compiler, through its C interface: it compiles for a named architecture without any GPU."""

import ctypes
import functools
import importlib.util
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """What one compiled kernel takes of a multiprocessor."""

    registers: int  # of a thread
    spilled: int  # bytes of a thread: those stored and loaded because registers did not do
    stack: int  # bytes of a thread
    shared: int  # bytes of a block
    instructions: int  # those that pad its end included

    def blocks(self, threads):
        """How many blocks a multiprocessor has room for, by its 65 536 registers, 64 kB of shared memory and threads.

        Those are what the smallest of the architectures has: sm_75.
        """
        registers = -(-self.registers // 8) * 8  # they are given out by eights
        return min(65536 // (registers * threads), 65536 // max(self.shared, 1), 1024 // threads)


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


def version():
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(find(), find().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def compile_for(architecture, code, names, options):
    """Compile to machine code; return what every kernel takes, by name, or raise with the log."""
    nvrtc, program = find(), ctypes.c_void_p()
    check = functools.partial(_check, nvrtc)
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None))
    try:
        for name in names:
            check(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        options = (*options, "--ptxas-options=-v", f"--gpu-architecture={architecture}")
        options = [option.encode() for option in options]
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
        machine_code = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetCUBIN(program, machine_code))
        figures, sections = _figures(_text(nvrtc, program)), _sections(machine_code.raw)
        return {
            name: Kernel(**figures[mangled], instructions=sections[f".text.{mangled}"] // INSTRUCTION)
            for name, mangled in lowered.items()
        }
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


INSTRUCTION = 16  # bytes, since sm_70


def _figures(log):
    """What ptxas says of every kernel, by its mangled name."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        stack, stores, loads = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", part).groups()
        shared = re.search(r"(\d+) bytes smem", part)
        found[part.split("'")[0]] = {
            "registers": int(re.search(r"Used (\d+) registers", part)[1]),
            "spilled": int(stores) + int(loads),
            "stack": int(stack),
            "shared": int(shared[1]) if shared else 0,
        }
    return found


def _sections(elf):
    """The sizes of the sections of a 64-bit ELF file, by name."""
    (table,), (entry, count, names) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<3H", elf, 58)
    headers = [struct.unpack_from("<2I4Q", elf, table + i * entry) for i in range(count)]
    text = headers[names][4]  # where the names are
    return {elf[text + header[0] : elf.index(b"\0", text + header[0])].decode(): header[5] for header in headers}


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
