// Kernels under hostile arrays without Python: each input is a call or a few, compared with the oracle.
//
// hebbax_fuzz_main is libFuzzer's (argc, argv); hebbax_fuzz_random(first, count, size) takes inputs from seeds instead, and
// hebbax_fuzz_files(paths, n) those that are kept: both need no libFuzzer.
#include <fstream>
#include <iterator>

#include "visits.h"

extern "C" void* hebbax_fuzz_handler(int kind);

static void start() {
    static bool started = false;
    if (started) return;
    started = true;
    open_arenas();
    open_visited();
    threads.start();
    for (int k = 0; k < KINDS; k++) {
        handlers[k] = (Handler)hebbax_fuzz_handler(k);
        XLA_FFI_Metadata metadata = {};
        XLA_FFI_Metadata_Extension extension = {};
        extension.extension_base.type = XLA_FFI_Extension_Metadata, extension.metadata = &metadata;
        XLA_FFI_CallFrame frame = {};
        frame.extension_start = &extension.extension_base, frame.api = api();
        if (handlers[k](&frame) || metadata.api_version.minor_version != 1) fail("metadata", k);
    }
}

static void one_input(const uint8_t* data, size_t size) {
    Draw draw{data, data + size};
    counts.inputs++;
    int which = draw.byte();
    if (which < 168) NetworkCase(draw, which % 4).run();
    else if (which < 176) VisitCase(draw).run();
    else if (which < 188) run_tile(draw);
    else if (which < 200) run_fade(draw);
    else if (which < 208) run_record(draw);
    else if (which < 216) run_pack(draw);
    else if (which < 224) run_merge(draw);
    else if (which < 230) run_exchange(draw);
    else if (which < 239) LogCase(draw, APPEND, 2).append();
    else if (which < 248) LogCase(draw, TALLY, 3).tally();
    else LogCase(draw, SAMPLE, 3).sample();
}

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    start();
    one_input(data, size);
    return 0;
}
const Counts* hebbax_fuzz_counts() { return &counts; }

void hebbax_fuzz_random(unsigned long long first, unsigned long long count, int size) {
    start();
    std::vector<uint8_t> bytes(size);
    for (unsigned long long k = first; k < first + count; k++) {
        Draw draw{nullptr, nullptr, (k + 1) * 0x9E3779B97F4A7C15u};
        for (auto& x : bytes) x = draw.bits() >> 56;
        seed = k;
        one_input(bytes.data(), bytes.size());
    }
}
void hebbax_fuzz_files(const char** paths, int count) {
    start();
    for (int k = 0; k < count; k++) {
        std::ifstream file(paths[k], std::ios::binary);
        std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        one_input(bytes.data(), bytes.size());
    }
}
#ifdef WITH_LIBFUZZER
int LLVMFuzzerRunDriver(int* argc, char*** argv, int (*input)(const uint8_t*, size_t));
static void write_counts() {
    const char* path = getenv("HEBBAX_FUZZ_COUNTS");
    FILE* file = path ? fopen(path, "w") : nullptr;
    if (!file) return;
    fprintf(file, "%lld", counts.inputs);
    for (int k = 0; k < KINDS; k++) fprintf(file, " %lld %lld", counts.calls[k], counts.accepted[k]);
    fclose(file);
}
int hebbax_fuzz_main(int argc, char** argv) {
    atexit(write_counts);
    return LLVMFuzzerRunDriver(&argc, &argv, LLVMFuzzerTestOneInput);
}
#endif
}
