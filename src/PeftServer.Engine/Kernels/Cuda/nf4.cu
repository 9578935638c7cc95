// 4-bit NormalFloat, high half of a byte first, 64 values to a maximum; rows are whole blocks. A thread decodes 16 values
// to bfloat16: 8 bytes in, 32 out. A grid row is a matrix row, which may be part of wider ones.
extern "C" __global__ void nf4_decode(const uint2* codes, const float* abs_max, uint4* target, int columns16, int ld_target8) {
    __shared__ float table[16];
    if (threadIdx.x == 0) {
        const float values[16] = {
            -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
            -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
            0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
#pragma unroll
        for (int i = 0; i < 16; i++) table[i] = values[i];
    }
    __syncthreads();
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= columns16) return;
    const size_t at = (size_t)blockIdx.x * columns16 + i;
    const uint2 packed = codes[at];
    const unsigned char* bytes = (const unsigned char*)&packed;
    const float scale = abs_max[at >> 2];
    float v[16];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        v[2 * k] = table[bytes[k] >> 4] * scale;
        v[2 * k + 1] = table[bytes[k] & 15] * scale;
    }
    uint4* out = target + (size_t)blockIdx.x * ld_target8 + 2 * i;
    out[0] = pack(v);
    out[1] = pack(v + 8);
}
