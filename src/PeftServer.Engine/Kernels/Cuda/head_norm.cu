// Norms over the heads of q and k in rows [q | k | v], in place; rstd takes each head's factor, float32 [tokens, heads]. A block is a
// token, a group of d8 threads (a power of two, at most a warp) a head. counts: heads of queries in the lower half, of keys in the upper.
// FORM: RMS or RMS_OFFSET of norm.cu.
__device__ __forceinline__ float group_sum(float v, int d8) {
    for (int o = d8 / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

template <int FORM>
__device__ __forceinline__ void norm_heads(
    uint4* rows, const uint4* q_weight, const uint4* k_weight, float* rstd, int counts, int d8, int ld8, float eps) {
    const int q_heads = counts & 0xffff, heads = q_heads + (counts >> 16), all = heads * d8;
    for (int first = 0; first < all; first += blockDim.x) { // all threads of a warp stay together for its sums
        const int t = first + threadIdx.x, head = t / d8, i = t % d8;
        float v[8], squares = 0;
        if (t < all) {
            unpack(rows[(size_t)blockIdx.x * ld8 + t], v);
            for (int k = 0; k < 8; k++) squares += v[k] * v[k];
        }
        const float r = rsqrtf(group_sum(squares, d8) / (d8 * 8) + eps);
        if (t < all) {
            float w[8];
            unpack((head < q_heads ? q_weight : k_weight)[i], w);
            for (int k = 0; k < 8; k++) v[k] = FORM == RMS ? to_float(to_bf16(v[k] * r)) * w[k] : v[k] * r * (1.0f + w[k]);
            rows[(size_t)blockIdx.x * ld8 + t] = pack(v);
            if (i == 0) rstd[(size_t)blockIdx.x * heads + head] = r;
        }
    }
}

// From the gradient of the normed heads to that of the heads x before, in place: r (g - x̂ mean(g x̂)) with g = grad * weight, x̂ = x * r.
template <int FORM>
__device__ __forceinline__ void norm_heads_backward(
    uint4* grad, const uint4* x, const uint4* q_weight, const uint4* k_weight, const float* rstd, int counts, int d8, int ld8) {
    const int q_heads = counts & 0xffff, heads = q_heads + (counts >> 16), all = heads * d8;
    for (int first = 0; first < all; first += blockDim.x) {
        const int t = first + threadIdx.x, head = t / d8, i = t % d8;
        float g[8], h[8], r = 0, dot = 0;
        if (t < all) {
            float w[8];
            unpack(grad[(size_t)blockIdx.x * ld8 + t], g);
            unpack(x[(size_t)blockIdx.x * all + t], h);
            unpack((head < q_heads ? q_weight : k_weight)[i], w);
            r = rstd[(size_t)blockIdx.x * heads + head];
            for (int k = 0; k < 8; k++) {
                g[k] *= FORM == RMS ? w[k] : 1.0f + w[k];
                h[k] *= r;
                dot += g[k] * h[k];
            }
        }
        const float mean = group_sum(dot, d8) / (d8 * 8);
        if (t < all) {
            for (int k = 0; k < 8; k++) g[k] = r * (g[k] - h[k] * mean);
            grad[(size_t)blockIdx.x * ld8 + t] = pack(g);
        }
    }
}

#define HEAD_NORM(NAME, FORM) \
    extern "C" __global__ void NAME( \
        uint4* rows, const uint4* q_weight, const uint4* k_weight, float* rstd, int counts, int d8, int ld8, float eps) { \
        norm_heads<FORM>(rows, q_weight, k_weight, rstd, counts, d8, ld8, eps); } \
    extern "C" __global__ void NAME##_backward( \
        uint4* grad, const uint4* x, const uint4* q_weight, const uint4* k_weight, const float* rstd, int counts, int d8, int ld8) { \
        norm_heads_backward<FORM>(grad, x, q_weight, k_weight, rstd, counts, d8, ld8); }
HEAD_NORM(rms_head_norm, RMS)
HEAD_NORM(offset_rms_head_norm, RMS_OFFSET)

// rows += bias, for rows that may be parts of wider ones. A grid row is a token.
extern "C" __global__ void add_bias(uint4* rows, const uint4* bias, int n8, int ld8) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= n8) return;
    float v[8], b[8];
    uint4* at = rows + (size_t)blockIdx.x * ld8 + i;
    unpack(*at, v);
    unpack(bias[i], b);
    for (int k = 0; k < 8; k++) v[k] += b[k];
    *at = pack(v);
}
