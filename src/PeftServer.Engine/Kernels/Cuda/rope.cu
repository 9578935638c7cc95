// Rotary embedding over the query and key heads of fused rows [q | k | v]. Pair i of a head is (i, i + D/2), or where pairs stand side
// by side (2i, 2i + 1). cosine and sine are float32 [tokens, D/2]. A thread turns eight pairs.
template <bool SIDE_BY_SIDE>
struct Pairs {
    // Places of the two groups of eight that hold pairs 8i to 8i + 7 of a head of 2 half8 groups.
    static __device__ __forceinline__ int first(int i, int half8) { return SIDE_BY_SIDE ? 2 * i : i; }
    static __device__ __forceinline__ int second(int i, int half8) { return SIDE_BY_SIDE ? 2 * i + 1 : i + half8; }

    // Turns the pairs in a and b by the angles of the token; sign -1 turns back, which is the backward.
    static __device__ __forceinline__ void turn(uint4& a, uint4& b, const float4* cosine, const float4* sine, size_t at, float sign) {
        float x[16], c[8], s[8], y[16];
        unpack(a, x);
        unpack(b, x + 8);
        *(float4*)c = cosine[at]; *(float4*)(c + 4) = cosine[at + 1];
        *(float4*)s = sine[at]; *(float4*)(s + 4) = sine[at + 1];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const int p = SIDE_BY_SIDE ? 2 * k : k, q = SIDE_BY_SIDE ? 2 * k + 1 : k + 8;
            y[p] = x[p] * c[k] - sign * x[q] * s[k];
            y[q] = x[q] * c[k] + sign * x[p] * s[k];
        }
        a = pack(y);
        b = pack(y + 8);
    }
};

template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_heads(uint4* qkv, const float4* cosine, const float4* sine, int heads, int half8, int ld8) {
    const int token = blockIdx.x;
    for (int t = threadIdx.x; t < heads * half8; t += blockDim.x) {
        const int head = t / half8, i = t % half8;
        uint4* start = qkv + (size_t)token * ld8 + head * 2 * half8;
        typedef Pairs<SIDE_BY_SIDE> P;
        P::turn(start[P::first(i, half8)], start[P::second(i, half8)], cosine, sine, ((size_t)token * half8 + i) * 2, 1.0f);
    }
}

// Gathers the gradients of q, k (turned back) and v, each [tokens, heads, D], into fused rows [q | k | v], which may be parts of wider
// ones. head_counts: those of queries in the lower half, of keys in the upper.
template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_back(
    const uint4* dq, const uint4* dk, const uint4* dv, const float4* cosine, const float4* sine, uint4* dqkv, int head_counts, int half8, int ld8) {
    const int token = blockIdx.x, d8 = 2 * half8, q_heads = head_counts & 0xffff, kv_heads = head_counts >> 16;
    uint4* out = dqkv + (size_t)token * ld8;
    for (int t = threadIdx.x; t < (q_heads + kv_heads) * half8; t += blockDim.x) {
        const int head = t / half8, i = t % half8;
        const uint4* source = head < q_heads ? dq + ((size_t)token * q_heads + head) * d8 : dk + ((size_t)token * kv_heads + head - q_heads) * d8;
        typedef Pairs<SIDE_BY_SIDE> P;
        uint4 a = source[P::first(i, half8)], b = source[P::second(i, half8)];
        P::turn(a, b, cosine, sine, ((size_t)token * half8 + i) * 2, -1.0f);
        out[head * d8 + P::first(i, half8)] = a;
        out[head * d8 + P::second(i, half8)] = b;
    }
    for (int t = threadIdx.x; t < kv_heads * d8; t += blockDim.x)
        out[(q_heads + kv_heads) * d8 + t] = dv[(size_t)token * kv_heads * d8 + t];
}

#define ROPE(NAME, SIDE_BY_SIDE) \
    extern "C" __global__ void NAME(uint4* qkv, const float4* cosine, const float4* sine, int heads, int half8, int ld8) { \
        turn_heads<SIDE_BY_SIDE>(qkv, cosine, sine, heads, half8, ld8); } \
    extern "C" __global__ void NAME##_backward( \
        const uint4* dq, const uint4* dk, const uint4* dv, const float4* cosine, const float4* sine, uint4* dqkv, int head_counts, int half8, \
        int ld8) { turn_back<SIDE_BY_SIDE>(dq, dk, dv, cosine, sine, dqkv, head_counts, half8, ld8); }
ROPE(rope, false)
ROPE(rope_side_by_side, true)
