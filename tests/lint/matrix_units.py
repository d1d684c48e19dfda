#!/usr/bin/env python3
"""Matrix units of devices that are not here: matrix_units.py SOURCE_ROOT. Prints what it did and what it skipped; exits 1 on a fault.

1. cl/matrix.cl and the kernels of convolutions compile for NVIDIA's, AMD's and Intel's compilers as far as clang has these targets, and
   come out with the unit's instruction; what a device lacks is refused. Where there is ptxas, it assembles NVIDIA's.
2. eq_tile_load_a, _b and eq_tile_run of cl/matrix.clh, compiled for this processor, put elements where the vendors' manuals say
   that lanes hold them: a product that is computed as the manuals describe comes out right. ldmatrix is read here as its manual says,
   from the places of rows that cl/matrix.clh gives it.
"""
import concurrent.futures
import ctypes
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

TF32, FP16, BF16 = 1, 2, 3
MMA, MFMA, WMMA11, WMMA12, DPAS8, DPAS16 = 1, 2, 3, 4, 5, 6
PITCH, SKIPPED = 20, 77

# Just enough of OpenCL's library for ptxas to find nothing undefined.
NVIDIA_LIBRARY = """
#define OVERLOADED __attribute__((overloadable))
size_t OVERLOADED get_local_id(uint d) { return d ? __nvvm_read_ptx_sreg_tid_y() : __nvvm_read_ptx_sreg_tid_x(); }
size_t OVERLOADED get_group_id(uint d)
{
    return d == 2 ? __nvvm_read_ptx_sreg_ctaid_z() : d ? __nvvm_read_ptx_sreg_ctaid_y() : __nvvm_read_ptx_sreg_ctaid_x();
}
size_t OVERLOADED get_local_size(uint d)
{
    return d == 2 ? __nvvm_read_ptx_sreg_ntid_z() : d ? __nvvm_read_ptx_sreg_ntid_y() : __nvvm_read_ptx_sreg_ntid_x();
}
size_t OVERLOADED get_global_id(uint d) { return get_group_id(d) * get_local_size(d) + get_local_id(d); }
size_t OVERLOADED get_global_offset(uint d) { return d >> 31; }
int OVERLOADED min(int a, int b) { return a < b ? a : b; }
void OVERLOADED barrier(cl_mem_fence_flags f) { (void)f; __nvvm_bar_sync(0); }
float4 OVERLOADED vload4(size_t i, const __global float *p) { p += 4 * i; return (float4)(p[0], p[1], p[2], p[3]); }
uint4 OVERLOADED vload4(size_t i, const __global uint *p) { p += 4 * i; return (uint4)(p[0], p[1], p[2], p[3]); }
void OVERLOADED vstore4(float4 v, size_t i, __global float *p) { p += 4 * i; p[0] = v.x; p[1] = v.y; p[2] = v.z; p[3] = v.w; }
"""
# Declarations of Intel's extensions, from their specifications.
INTEL_DECLARATIONS = """
#define OVERLOADED __attribute__((overloadable))
float8 OVERLOADED intel_sub_group_f16_f16_matrix_mad_k16(int8 a, int8 b, float8 acc);
float8 OVERLOADED intel_sub_group_bf16_bf16_matrix_mad_k16(int8 a, int8 b, float8 acc);
float8 OVERLOADED intel_sub_group_f16_f16_matrix_mad_k16(short8 a, int8 b, float8 acc);
float8 OVERLOADED intel_sub_group_bf16_bf16_matrix_mad_k16(short8 a, int8 b, float8 acc);
float8 OVERLOADED intel_sub_group_tf32_tf32_matrix_mad_k8(float4 a, float8 b, float8 acc);
"""
# unit, precision, target, processor, and what the result must have: an instruction, or None where the text has to be refused.
TARGETS = [(MMA, p, "nvptx64-unknown-unknown", "sm_80", "mma.sync.aligned." + shape)
           for p, shape in ((TF32, "m16n8k8.row.col.f32.tf32"), (FP16, "m16n8k16.row.col.f32.f16"), (BF16, "m16n8k16.row.col.f32.bf16"))]
TARGETS += [(unit, p, "amdgcn-amd-amdhsa", processor, instruction) for unit, p, processor, instruction in (
    (MFMA, FP16, "gfx908", "v_mfma_f32_16x16x16f16"), (MFMA, FP16, "gfx90a", "v_mfma_f32_16x16x16f16"),
    (MFMA, BF16, "gfx90a", "v_mfma_f32_16x16x16bf16_1k"), (MFMA, TF32, "gfx942", "v_mfma_f32_16x16x8_xf32"),
    (MFMA, FP16, "gfx942", "v_mfma_f32_16x16x16_f16"), (MFMA, BF16, "gfx942", "v_mfma_f32_16x16x16_bf16"),
    (WMMA11, FP16, "gfx1100", "v_wmma_f32_16x16x16_f16"), (WMMA11, BF16, "gfx1100", "v_wmma_f32_16x16x16_bf16"),
    (WMMA12, FP16, "gfx1200", "v_wmma_f32_16x16x16_f16"), (WMMA12, BF16, "gfx1200", "v_wmma_f32_16x16x16_bf16"),
    (MFMA, BF16, "gfx908", None), (MFMA, TF32, "gfx90a", None), (MFMA, FP16, "gfx1030", None), (WMMA11, FP16, "gfx1030", None),
    (WMMA12, FP16, "gfx1100", None), (WMMA11, TF32, "gfx1100", None))]
TARGETS += [(unit, p, "spir64-unknown-unknown", "", name) for unit, p, name in (
    (DPAS8, FP16, "intel_sub_group_f16_f16_matrix_mad_k16Dv8_iS_Dv8_f"), (DPAS8, BF16, "intel_sub_group_bf16_bf16_matrix_mad_k16Dv8_iS_Dv8_f"),
    (DPAS16, FP16, "intel_sub_group_f16_f16_matrix_mad_k16Dv8_sDv8_iDv8_f"),
    (DPAS16, BF16, "intel_sub_group_bf16_bf16_matrix_mad_k16Dv8_sDv8_iDv8_f"),
    (DPAS16, TF32, "intel_sub_group_tf32_tf32_matrix_mad_k8Dv4_fDv8_fS0_"), (DPAS8, TF32, None))]
UNKNOWN = ("invalid target ID", "unknown target CPU", "not a recognized processor", "unknown builtin", "unknown target triple",
           "No available targets")


def command(root, *options):
    return ["clang", "-x", "cl", "-cl-std=CL1.2", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Xclang",
            "-finclude-default-header", "-include", os.path.join(root, "cl/common.clh"), "-DBLOCK=16", "-DEQ_FMA=1", *options]


def run(arguments):
    result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return result.returncode, result.stdout


def compile_one(root, folder, kernel, unit, precision, target, processor, wanted):
    """'ok', 'skipped: why' or 'fault: why'."""
    out = os.path.join(folder, "%s-%d-%d-%s.s" % (kernel, unit, precision, processor))
    options = ["-target", target, "-S", "-DEQ_MATRIX=%d" % unit, "-DPRECISION=%d" % precision, "-o", out]
    library = {"nvptx64": NVIDIA_LIBRARY, "spir64": INTEL_DECLARATIONS}.get(target.split("-")[0], "")
    header = os.path.join(folder, target + ".clh")
    if not os.path.exists(header):
        with open(header, "w", encoding="ascii") as file:
            file.write(library)
    if target.startswith("nvptx"):
        options += ["-Xclang", "-target-cpu", "-Xclang", processor, "-Xclang", "-target-feature", "-Xclang", "+ptx70"]
    elif target.startswith("amdgcn"):
        options += ["-mcpu=" + processor, "-nogpulib"]
    else:
        options += ["-emit-llvm"]
    code, text = run(command(root, *options, "-include", header, os.path.join(root, "cl", kernel + ".cl")))
    if wanted is None:
        return "ok" if code == 1 and "#error" in text else "skipped: clang does not know it" if any(u in text for u in UNKNOWN) \
            else "fault: it was not refused\n" + text
    if code:
        return "skipped: clang does not know it" if any(u in text for u in UNKNOWN) else "fault: " + text
    with open(out, encoding="ascii", errors="replace") as file:
        text = file.read()
    for instruction in [] if kernel == "conv2d_matrix_filter" else [wanted] + (["ldmatrix.sync.aligned.m8n8.x4.shared.b16"] if unit == MMA else []):
        if instruction not in text:
            return "fault: there is no %s in it" % instruction
    if target.startswith("nvptx") and shutil.which("ptxas"):
        for architecture in ("sm_80", "sm_90"):
            code, text = run(["ptxas", "-arch=" + architecture, out, "-o", os.path.join(folder, "cubin-%s-%d" % (kernel, precision))])
            if code:
                return "fault: ptxas: " + text
    return "ok"


def check_compilers(root, folder):
    faults = 0
    jobs = [(kernel, *target) for kernel in ("matrix", "conv2d_matrix", "conv2d_matrix_weight_grad", "conv2d_matrix_filter") for target in TARGETS]
    for target in {job[3] for job in jobs}:  # written before threads share it
        compile_one(root, folder, "matrix", *next(job[1:] for job in jobs if job[3] == target))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: compile_one(root, folder, *job), jobs))
    for job, result in zip(jobs, results):
        if result != "ok":
            print("unit %d, precision %d, %s for %s: %s" % (job[1], job[2], job[0], job[4] or job[3], result))
        faults += result.startswith("fault")
    print("%d of %d compilations done%s" % (results.count("ok"), len(jobs), "" if shutil.which("ptxas") else "; no ptxas: not assembled"))
    return faults


# ---- lanes, as the manuals have them. Each function gives the place of element i of a lane: (row, k) of A, (k, column) of B,
# (row, column) of C. Elements are values, not words; tiles that a unit makes of several instructions follow one another.

def mma_a(lane, i, bits):  # PTX ISA, "Matrix Fragments for mma.m16n8k16" and ".m16n8k8" of .tf32
    group, thread = lane // 4, lane % 4
    if bits == 16:
        return group + (8 if i % 4 >= 2 else 0), thread * 2 + i % 2 + (8 if i >= 4 else 0)
    return group + (8 if i % 2 else 0), thread + (4 if i >= 2 else 0)


def mma_b(lane, i, bits):
    group, thread = lane // 4, lane % 4
    elements = 4 if bits == 16 else 2
    tile, i = divmod(i, elements)
    k = thread * 2 + i % 2 + (8 if i >= 2 else 0) if bits == 16 else thread + 4 * i
    return k, group + 8 * tile


def mma_c(lane, i, _bits):
    tile, i = divmod(i, 4)
    return lane // 4 + (8 if i >= 2 else 0), lane % 4 * 2 + i % 2 + 8 * tile


def mfma_a(lane, i, bits):  # AMD matrix instruction calculator: 16x16x16 and 16x16x8, one block
    return lane % 16, (4 if bits == 16 else 2) * (lane // 16) + i


def mfma_b(lane, i, bits):
    return mfma_a(lane, i, bits)[::-1]


def mfma_c(lane, i, _bits):
    return 4 * (lane // 16) + i, lane % 16


def wmma11_a(lane, i, _bits):  # RDNA 3 ISA: both halves of the wave hold the same
    return lane % 16, i


def wmma11_c(lane, i, _bits):
    return 2 * i + lane // 16, lane % 16


def wmma12_a(lane, i, _bits):  # RDNA 4 ISA
    return lane % 16, 8 * (lane // 16) + i


def wmma12_c(lane, i, _bits):
    return 8 * (lane // 16) + i, lane % 16


def dpas8_a(lane, i, _bits):  # cl_intel_subgroup_matrix_multiply_accumulate: int8, a pair of k for each lane
    return i // 2, lane * 2 + i % 2


def dpas16_a(lane, i, bits):  # short8: a k for each lane; tf32, float4: two rows
    return (i, lane) if bits == 16 else (i * 2 + lane // 8, lane % 8)


def dpas_b(lanes):
    def place(lane, i, bits):
        elements = 16 if bits == 16 else 8
        return i % elements, lane + lanes * (i // elements)
    return place


def dpas_c(lanes):
    def place(lane, i, _bits):
        half, i = divmod(i, 8)  # elements in memory: rows' half, then columns' half
        halves = 16 // lanes
        return i + 8 * (half // halves), lane + lanes * (half % halves)
    return place


LAYOUTS = {
    MMA: (32, mma_a, mma_b, mma_c, (TF32, FP16, BF16)),
    MFMA: (64, mfma_a, mfma_b, mfma_c, (TF32, FP16, BF16)),
    WMMA11: (32, wmma11_a, lambda l, i, b: wmma11_a(l, i, b)[::-1], wmma11_c, (FP16, BF16)),
    WMMA12: (32, wmma12_a, lambda l, i, b: wmma12_a(l, i, b)[::-1], wmma12_c, (FP16, BF16)),
    DPAS8: (8, dpas8_a, dpas_b(8), dpas_c(8), (FP16, BF16)),
    DPAS16: (16, dpas16_a, dpas_b(16), dpas_c(16), (TF32, FP16, BF16)),
}
LANES_PROGRAM = """
uint2 OVERLOADED vload2(size_t i, const __local uint *p) { p += 2 * i; return (uint2)(p[0], p[1]); }
uint4 OVERLOADED vload4(size_t i, const __local uint *p) { p += 4 * i; return (uint4)(p[0], p[1], p[2], p[3]); }
uint8 OVERLOADED vload8(size_t i, const __local uint *p)
{
    p += 8 * i;
    return (uint8)(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
}
#if EQ_MATRIX == 1 // ldmatrix: a lane gets words of the rows that others name
uint lanes_a(__local const uint *tile, int lane, __local uint *elements)
{
    for (int i = 0; i < 4; i++)
        elements[i] = tile[EQ_A_PLACE(8 * i + lane / 4) + lane % 4];
    return 16;
}
uint lanes_b(__local const uint *tile, int lane, __local uint *elements)
{
    for (int i = 0; i < 4; i++)
        elements[i] = tile[EQ_B_PLACE(8 * i + lane / 4) + lane % 4];
    return 16;
}
#else
uint lanes_a(__local const uint *tile, int lane, __local uint *elements)
{
    union { eq_tile_a a; uint words[sizeof(eq_tile_a) / 4]; } u;
    u.a = eq_tile_load_a(tile, lane);
    for (uint i = 0; i < sizeof u / 4; i++)
        elements[i] = u.words[i];
    return sizeof u;
}
uint lanes_b(__local const uint *tile, int lane, __local uint *elements)
{
    union { eq_tile_b b; uint words[sizeof(eq_tile_b) / 4]; } u;
    u.b = eq_tile_load_b(tile, lane);
    for (uint i = 0; i < sizeof u / 4; i++)
        elements[i] = u.words[i];
    return sizeof u;
}
#endif
uint lanes_sums(__local const float *elements, __local float *out, int lane)
{
    union { eq_tile_sums sums; float values[sizeof(eq_tile_sums) / 4]; } u;
    for (uint i = 0; i < sizeof u / 4; i++)
        u.values[i] = elements[i];
    for (int r = 0; r < EQ_ROWS; r++)
        for (int c = 0; c < EQ_RUNS; c++) {
            union { eq_run run; float values[EQ_RUN]; } v;
            v.run = eq_tile_run(&u.sums, r, c);
            for (int i = 0; i < EQ_RUN; i++)
                out[EQ_ROW(lane, r) * EQ_TILE_PITCH + EQ_COLUMN(lane, c) + i] = v.values[i];
        }
    return sizeof u;
}
uint lanes_count(void) { return EQ_TILE_LANES; }
uint lanes_b_row(int column) { return EQ_B_ROW(column); }
"""
# What only the real compilers know.
STUBS = ["-D__builtin_amdgcn_%s(a, b, c, ...)=(c)" % name for name in (
    "mfma_f32_16x16x8_xf32", "mfma_f32_16x16x16f16", "mfma_f32_16x16x16bf16_1k", "wmma_f32_16x16x16_f16_w32", "wmma_f32_16x16x16_bf16_w32",
    "wmma_f32_16x16x16_f16_w32_gfx12", "wmma_f32_16x16x16_bf16_w32_gfx12")] + ["-D__gfx942__", "-D__GFX11__", "-D__GFX12__", "-D__asm__(...)=", '-Dvolatile(...)=("")']


def lanes_library(root, folder, unit, precision):
    source, library = os.path.join(folder, "lanes.cl"), os.path.join(folder, "lanes-%d-%d.so" % (unit, precision))
    with open(source, "w", encoding="ascii") as file:
        file.write(INTEL_DECLARATIONS + '#include "%s"\n' % os.path.join(root, "cl/matrix.clh") + LANES_PROGRAM)
    options = ["-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-uninitialized", "-Wno-psabi", "-Xclang", "-cl-ext=+cl_khr_fp16", "-DEQ_MATRIX=%d" % unit, "-DPRECISION=%d" % precision]
    code, text = run(command(root, *options, *STUBS, "-fPIC", "-shared", "-nostdlib", source, "-o", library))
    return (None, text) if code else (ctypes.CDLL(library), "")


def check_layout(root, folder, unit, precision):
    """The product of two matrices of small whole numbers, lane by lane; a text for a fault."""
    lanes, place_a, place_b, place_c, _ = LAYOUTS[unit]
    library, text = lanes_library(root, folder, unit, precision)
    if not library:
        return text
    if library.lanes_count() != lanes:
        return "%d lanes, not %d" % (library.lanes_count(), lanes)
    bits, depth = (32, 8) if precision == TF32 else (16, 16)
    pack = "<%df" if bits == 32 else "<%dH"  # 16 bits: the values stand for themselves
    random.seed(unit * 10 + precision)
    a = [[random.randrange(1, 50) for _ in range(depth)] for _ in range(16)]
    b = [[random.randrange(1, 50) for _ in range(depth)] for _ in range(16)]  # b[column][k]
    def tile(rows):
        words = (ctypes.c_uint32 * (16 * PITCH))(*([0xffffffff] * (16 * PITCH)))
        for r, row in enumerate(rows):
            words[r * PITCH:r * PITCH + 8] = struct.unpack("<8I", struct.pack(pack % depth, *row))
        return words
    b_rows = {library.lanes_b_row(column): b[column] for column in range(16)}
    a_tile, b_tile, out = tile(a), tile([b_rows[row] for row in range(16)]), (ctypes.c_float * (16 * PITCH))()
    elements, sums = (ctypes.c_uint32 * 64)(), (ctypes.c_float * 64)()
    a_held, b_held = [[None] * depth for _ in range(16)], [[None] * 16 for _ in range(depth)]
    for lane in range(lanes):
        for read, words, place, held in ((library.lanes_a, a_tile, place_a, a_held), (library.lanes_b, b_tile, place_b, b_held)):
            size = read(words, lane, elements)
            values = struct.unpack(pack % (size * 8 // bits), bytes(elements)[:size])
            instructions = 2 if unit in (DPAS8, DPAS16) and held is a_held else 1
            for i, value in enumerate(values):
                part, e = divmod(i, len(values) // instructions)  # rows 0 to 7, then 8 to 15
                row, column = place(lane, e, bits)
                held[row + 8 * part][column] = value
    product = [[sum(x * b_held[k][column] for k, x in enumerate(row)) for column in range(16)] for row in a_held]
    for lane in range(lanes):
        for i in range(256 // lanes):
            row, column = place_c(lane, i, bits)
            sums[i] = product[row][column]
        if library.lanes_sums(sums, out, lane) != 1024 // lanes:
            return "a lane holds another number of sums than %d" % (256 // lanes)
    for row in range(16):
        for column in range(16):
            want = sum(x * y for x, y in zip(a[row], b[column]))
            if out[row * PITCH + column] != want:
                return "row %d, column %d is %g, not %g" % (row, column, out[row * PITCH + column], want)
    return ""


def main():
    root = os.path.abspath(sys.argv[1])
    if not shutil.which("clang"):
        print("skipped: there is no clang")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        faults = check_compilers(root, folder)
        for unit, layout in LAYOUTS.items():
            for precision in layout[-1]:
                text = check_layout(root, folder, unit, precision)
                if text:
                    print("unit %d, precision %d: lanes: %s" % (unit, precision, text))
                    faults += 1
    print("%d layouts of lanes checked" % sum(len(layout[-1]) for layout in LAYOUTS.values()))
    print("%d faults" % faults)
    sys.exit(faults != 0)


main()
