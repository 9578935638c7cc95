// What every kernel here uses. No CUDA headers: NVRTC compiles these files at start, on hosts without a toolkit.
typedef unsigned short u16;

__device__ __forceinline__ float to_float(u16 v) { return __uint_as_float(((unsigned)v) << 16); }

// Round to nearest even, as libtorch converts float32 to bfloat16.
__device__ __forceinline__ u16 to_bf16(float f) {
    unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (u16)0x7fc0;
    return (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// Eight bfloat16 values travel together: one 16-byte access.
__device__ __forceinline__ void unpack(const uint4& v, float* f) {
    const u16* p = (const u16*)&v;
#pragma unroll
    for (int i = 0; i < 8; i++) f[i] = to_float(p[i]);
}

__device__ __forceinline__ uint4 pack(const float* f) {
    uint4 v;
    u16* p = (u16*)&v;
#pragma unroll
    for (int i = 0; i < 8; i++) p[i] = to_bf16(f[i]);
    return v;
}

// Sum over all threads of a block (at most 1024), given to each of them.
__device__ __forceinline__ float block_sum(float v) {
    __shared__ float sums[33];
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    __syncthreads(); // the sums of the call before have been read
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < (blockDim.x >> 5) ? sums[threadIdx.x] : 0.0f;
#pragma unroll
        for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
        if (threadIdx.x == 0) sums[32] = v;
    }
    __syncthreads();
    return sums[32];
}

// Largest value over all threads of a block (at most 1024) of values that are not negative, given to each of them.
__device__ __forceinline__ float block_max(float v) {
    __shared__ float highest[33];
#pragma unroll
    for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
    __syncthreads();
    if ((threadIdx.x & 31) == 0) highest[threadIdx.x >> 5] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < (blockDim.x >> 5) ? highest[threadIdx.x] : 0.0f;
#pragma unroll
        for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
        if (threadIdx.x == 0) highest[32] = v;
    }
    __syncthreads();
    return highest[32];
}
