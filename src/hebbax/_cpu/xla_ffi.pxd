"""The part of XLA's FFI that the handlers use, from the C header that jaxlib ships.

All of it is in API version 0.1, which is what the handlers claim: one build runs on every jaxlib since.
"""

from libc.stdint cimport int64_t


cdef extern from "xla/ffi/api/c_api.h" nogil:
    ctypedef struct XLA_FFI_Api:
        pass
    ctypedef struct XLA_FFI_Error:
        pass
    ctypedef struct XLA_FFI_Buffer:
        int dtype
        void* data
        int64_t rank
        int64_t* dims
    ctypedef struct XLA_FFI_Scalar:
        int dtype
        void* value
    ctypedef struct XLA_FFI_Args:
        int64_t size
        void** args
    ctypedef struct XLA_FFI_Rets:
        int64_t size
        void** rets
    ctypedef struct XLA_FFI_Attrs:
        int64_t size
        void** attrs
    ctypedef struct XLA_FFI_CallFrame:
        const XLA_FFI_Api* api
        XLA_FFI_Args args
        XLA_FFI_Rets rets
        XLA_FFI_Attrs attrs


cdef extern from *:
    """
    /* Before its first call XLA asks, through an extension of the call frame, which API a handler was written for. The
       types have other names in newer headers; the members have not. */
    static inline int hebbax_answer_metadata(XLA_FFI_CallFrame* frame) {
        if (frame->extension_start == NULL || frame->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
        XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
        metadata->api_version.major_version = 0;
        metadata->api_version.minor_version = 1;
        return 1;
    }
    static inline XLA_FFI_Error* hebbax_out_of_range(const XLA_FFI_Api* api, const char* message) {
        XLA_FFI_Error_Create_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.message = message;
        args.errc = XLA_FFI_Error_Code_OUT_OF_RANGE;
        return api->XLA_FFI_Error_Create(&args);
    }
    /* Ask XLA's pool to run work(shared) on one of its threads; 0 if it has none. */
    static inline int hebbax_schedule(void* call_frame, void (*work)(void*), void* shared) {
        const XLA_FFI_CallFrame* frame = (const XLA_FFI_CallFrame*)call_frame;
        XLA_FFI_ThreadPool_Schedule_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.ctx = frame->ctx;
        args.task = work;
        args.data = shared;
        XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
        if (error == NULL) return 1;
        XLA_FFI_Error_Destroy_Args destroy;
        destroy.struct_size = sizeof(destroy);
        destroy.extension_start = NULL;
        destroy.error = error;
        frame->api->XLA_FFI_Error_Destroy(&destroy);
        return 0;
    }
    """
    bint schedule "hebbax_schedule"(void*, void (*)(void*) noexcept nogil, void*) noexcept nogil
    bint answer_metadata "hebbax_answer_metadata"(XLA_FFI_CallFrame*) noexcept nogil
    XLA_FFI_Error* out_of_range "hebbax_out_of_range"(const XLA_FFI_Api*, const char*) noexcept nogil
