// Rows of bfloat16 as 8-bit floats (e4m3) with a scale each: x * column_scale = codes * scale, where column_scale may be null.
// A block is a row; x may be part of wider rows. GPUs before compute capability 8.9 have no such floats and get nothing written.
#define FP8_CHUNKS 4
extern "C" __global__ void quantize_rows(const uint4* x, const float4* column_scale, uint2* codes, float* scale, int n8, int ld_x8) {
#if __CUDA_ARCH__ >= 890
    float v[FP8_CHUNKS][8];
    float highest = 0;
#pragma unroll
    for (int c = 0; c < FP8_CHUNKS; c++) {
        const int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            unpack(x[(size_t)blockIdx.x * ld_x8 + i], v[c]);
            if (column_scale) {
                float s[8];
                *(float4*)s = column_scale[2 * i];
                *(float4*)(s + 4) = column_scale[2 * i + 1];
                for (int k = 0; k < 8; k++) v[c][k] *= s[k];
            }
            for (int k = 0; k < 8; k++) highest = fmaxf(highest, fabsf(v[c][k]));
        }
    }
    highest = block_max(highest);
    const float unit = highest > 0 ? highest / 448.0f : 1.0f;
    const float inverse = 1.0f / unit;
    if (threadIdx.x == 0) scale[blockIdx.x] = unit;
#pragma unroll
    for (int c = 0; c < FP8_CHUNKS; c++) {
        const int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            uint2 out;
            unsigned short* pairs = (unsigned short*)&out;
            for (int k = 0; k < 4; k++)
                asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pairs[k]) : "f"(v[c][2 * k + 1] * inverse), "f"(v[c][2 * k] * inverse));
            codes[(size_t)blockIdx.x * n8 + i] = out;
        }
    }
#endif
}

// Bytes [rows, columns] to [columns, rows], both multiples of 64: a block of 256 threads turns a tile of 64 x 64.
extern "C" __global__ void transpose_bytes(const unsigned char* source, unsigned char* target, int rows, int columns) {
    __shared__ unsigned char tile[64][68];
    const size_t row0 = (size_t)blockIdx.y * 64, column0 = (size_t)blockIdx.x * 64;
    const int line = threadIdx.x >> 2, part = (threadIdx.x & 3) * 16;
    const uint4 in = *(const uint4*)(source + (row0 + line) * columns + column0 + part);
    unsigned* words = (unsigned*)&tile[line][part];
    words[0] = in.x; words[1] = in.y; words[2] = in.z; words[3] = in.w;
    __syncthreads();
    uint4 out;
    unsigned char* bytes = (unsigned char*)&out;
#pragma unroll
    for (int k = 0; k < 16; k++) bytes[k] = tile[part + k][line];
    *(uint4*)(target + (column0 + line) * rows + row0 + part) = out;
}
