// Rotary embedding over the query and key heads of fused rows [q | k | v]: pair i of a head is (i, i + D/2).
// cosine and sine are float32 [tokens, D/2]. A thread turns eight pairs. sign -1 turns back, which is the backward.
extern "C" __global__ void rope(uint4* qkv, const float4* cosine, const float4* sine, int heads, int half8, int ld8, float sign) {
    const int token = blockIdx.x;
    for (int t = threadIdx.x; t < heads * half8; t += blockDim.x) {
        const int head = t / half8, i = t % half8;
        uint4* a = qkv + (size_t)token * ld8 + head * 2 * half8 + i;
        uint4* b = a + half8;
        float x[8], y[8], c[8], s[8];
        unpack(*a, x);
        unpack(*b, y);
        const size_t at = ((size_t)token * half8 + i) * 2;
        *(float4*)c = cosine[at]; *(float4*)(c + 4) = cosine[at + 1];
        *(float4*)s = sine[at]; *(float4*)(s + 4) = sine[at + 1];
        float u[8], v[8];
        for (int k = 0; k < 8; k++) {
            u[k] = x[k] * c[k] - sign * y[k] * s[k];
            v[k] = y[k] * c[k] + sign * x[k] * s[k];
        }
        *a = pack(u);
        *b = pack(v);
    }
}

// Gathers the gradients of q, k (turned back) and v, each [tokens, heads, D], into fused rows [q | k | v], which may be parts of wider
// ones. head_counts: those of queries in the lower half, of keys in the upper.
extern "C" __global__ void rope_backward(
    const uint4* dq, const uint4* dk, const uint4* dv, const float4* cosine, const float4* sine, uint4* dqkv, int head_counts, int half8, int ld8) {
    const int token = blockIdx.x, d8 = 2 * half8, q_heads = head_counts & 0xffff, kv_heads = head_counts >> 16;
    uint4* out = dqkv + (size_t)token * ld8;
    for (int t = threadIdx.x; t < (q_heads + kv_heads) * half8; t += blockDim.x) {
        const int head = t / half8, i = t % half8;
        const uint4* source = head < q_heads ? dq + ((size_t)token * q_heads + head) * d8 : dk + ((size_t)token * kv_heads + head - q_heads) * d8;
        float x[8], y[8], c[8], s[8];
        unpack(source[i], x);
        unpack(source[i + half8], y);
        const size_t at = ((size_t)token * half8 + i) * 2;
        *(float4*)c = cosine[at]; *(float4*)(c + 4) = cosine[at + 1];
        *(float4*)s = sine[at]; *(float4*)(s + 4) = sine[at + 1];
        float u[8], v[8];
        for (int k = 0; k < 8; k++) {
            u[k] = x[k] * c[k] + y[k] * s[k];
            v[k] = y[k] * c[k] - x[k] * s[k];
        }
        out[head * d8 + i] = pack(u);
        out[head * d8 + i + half8] = pack(v);
    }
    for (int t = threadIdx.x; t < kv_heads * d8; t += blockDim.x)
        out[(q_heads + kv_heads) * d8 + t] = dv[(size_t)token * kv_heads * d8 + t];
}
