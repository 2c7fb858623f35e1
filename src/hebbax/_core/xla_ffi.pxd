"""The part of XLA's FFI that the handlers use, from the C header that jaxlib ships.

All of it is in API version 0.1, which is what the handlers claim: one build runs on every jaxlib since. What an XLA
of that version may lack, the number of the device, is asked for only where it is there.
"""

from libc.stdint cimport int32_t, int64_t


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
    ctypedef struct XLA_FFI_Array:
        int dtype
        size_t size
        void* data
    ctypedef struct XLA_FFI_ByteSpan:
        const char* ptr
        size_t len
    ctypedef struct XLA_FFI_Args:
        int64_t size
        void** args
    ctypedef struct XLA_FFI_Rets:
        int64_t size
        void** rets
    ctypedef struct XLA_FFI_Attrs:
        int64_t size
        int* types
        XLA_FFI_ByteSpan** names
        void** attrs
    ctypedef struct XLA_FFI_CallFrame:
        const XLA_FFI_Api* api
        XLA_FFI_Args args
        XLA_FFI_Rets rets
        XLA_FFI_Attrs attrs
    int ARRAY "XLA_FFI_AttrType_ARRAY"
    int SCALAR "XLA_FFI_AttrType_SCALAR"
    int STRING "XLA_FFI_AttrType_STRING"
    int S64 "XLA_FFI_DataType_S64"
    int OUT_OF_RANGE "XLA_FFI_Error_Code_OUT_OF_RANGE"
    int INTERNAL "XLA_FFI_Error_Code_INTERNAL"
    int CAPTURABLE "XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE"


cdef extern from *:
    """
    #include <stddef.h>

    /* Before its first call XLA asks, through an extension of the call frame, which API a handler was written for, and
       whether what it does can be captured in a CUDA graph. The types have other names in newer headers; the members
       have not. */
    static inline int hebbax_answer_metadata(XLA_FFI_CallFrame* frame, int traits) {
        if (frame->extension_start == NULL || frame->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
        XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
        metadata->api_version.major_version = 0;
        metadata->api_version.minor_version = 1;
        metadata->traits = (XLA_FFI_Handler_Traits)traits;
        return 1;
    }
    static inline XLA_FFI_Error* hebbax_error(const XLA_FFI_Api* api, const char* message, int code) {
        XLA_FFI_Error_Create_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.message = message;
        args.errc = (XLA_FFI_Error_Code)code;
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
    static inline XLA_FFI_Error* hebbax_stream(const XLA_FFI_CallFrame* frame, void** stream) {
        XLA_FFI_Stream_Get_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.ctx = frame->ctx;
        args.stream = NULL;
        XLA_FFI_Error* error = frame->api->XLA_FFI_Stream_Get(&args);
        *stream = args.stream;
        return error;
    }
    /* The number that one execution of a program has on all its devices. */
    static inline XLA_FFI_Error* hebbax_run(const XLA_FFI_CallFrame* frame, int64_t* run) {
        const XLA_FFI_Api* api = frame->api;
        size_t end = offsetof(XLA_FFI_Api, XLA_FFI_RunId_Get) + sizeof(api->XLA_FFI_RunId_Get);
        if (api->struct_size < end) {
            const char* message = "this version of XLA does not tell which execution calls";
            return hebbax_error(api, message, XLA_FFI_Error_Code_INTERNAL);
        }
        XLA_FFI_RunId_Get_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.ctx = frame->ctx;
        args.run_id = 0;
        XLA_FFI_Error* error = api->XLA_FFI_RunId_Get(&args);
        *run = args.run_id;
        return error;
    }
    static inline XLA_FFI_Error* hebbax_device(const XLA_FFI_CallFrame* frame, int32_t* device) {
        const XLA_FFI_Api* api = frame->api;
        size_t end = offsetof(XLA_FFI_Api, XLA_FFI_DeviceOrdinal_Get) + sizeof(api->XLA_FFI_DeviceOrdinal_Get);
        if (api->struct_size < end) {
            const char* message = "this version of XLA does not tell on which device it calls";
            return hebbax_error(api, message, XLA_FFI_Error_Code_INTERNAL);
        }
        XLA_FFI_DeviceOrdinal_Get_Args args;
        args.struct_size = sizeof(args);
        args.extension_start = NULL;
        args.ctx = frame->ctx;
        args.device_ordinal = 0;
        XLA_FFI_Error* error = api->XLA_FFI_DeviceOrdinal_Get(&args);
        *device = args.device_ordinal;
        return error;
    }
    """
    bint schedule "hebbax_schedule"(void*, void (*)(void*) noexcept nogil, void*) noexcept nogil
    bint answer_metadata "hebbax_answer_metadata"(XLA_FFI_CallFrame*, int) noexcept nogil
    XLA_FFI_Error* new_error "hebbax_error"(const XLA_FFI_Api*, const char*, int) noexcept nogil
    XLA_FFI_Error* get_stream "hebbax_stream"(const XLA_FFI_CallFrame*, void**) noexcept nogil
    XLA_FFI_Error* get_run "hebbax_run"(const XLA_FFI_CallFrame*, int64_t*) noexcept nogil
    XLA_FFI_Error* get_device "hebbax_device"(const XLA_FFI_CallFrame*, int32_t*) noexcept nogil
