// Rotary embedding over the query and key heads of fused rows of q, k and v. Pair i of the 2h dimensions of a head that turn is (i, i + h),
// or where pairs stand side by side (2i, 2i + 1). cosine and sine are float32 [tokens, h]. A thread turns eight pairs.
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

// Where a head that turns, one of the queries or behind them of the keys, and where one of the values stands among the heads of a row: all
// queries, all keys, all values, or with by_head those of a head together.
struct Order {
    int q, kv, by_head;
    __device__ __forceinline__ Order(int head_counts, int by_head) : q(head_counts & 0xffff), kv(head_counts >> 16), by_head(by_head) {}
    __device__ __forceinline__ int turning(int head) const { return !by_head ? head : head < q ? 3 * head : 3 * (head - q) + 1; }
    __device__ __forceinline__ int value(int head) const { return by_head ? 3 * head + 2 : q + kv + head; }
};

// half8 of a head's d8 groups hold the first of the pairs, as many the second; the others do not turn.
template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_heads(uint4* qkv, const float4* cosine, const float4* sine, int head_counts, int half8, int ld8, int d8, int by_head) {
    const int token = blockIdx.x;
    const Order order(head_counts, by_head);
    for (int t = threadIdx.x; t < (order.q + order.kv) * half8; t += blockDim.x) {
        const int head = t / half8, i = t % half8;
        uint4* start = qkv + (size_t)token * ld8 + order.turning(head) * d8;
        typedef Pairs<SIDE_BY_SIDE> P;
        P::turn(start[P::first(i, half8)], start[P::second(i, half8)], cosine, sine, ((size_t)token * half8 + i) * 2, 1.0f);
    }
}

// Gathers the gradients of q, k (turned back) and v, each [tokens, heads, D], into fused rows of q, k and v, which may be parts of wider
// ones. head_counts: those of queries in the lower half, of keys in the upper.
template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_back(
    const uint4* dq, const uint4* dk, const uint4* dv, const float4* cosine, const float4* sine, uint4* dqkv, int head_counts, int half8, int ld8,
    int d8, int by_head) {
    const int token = blockIdx.x, units = d8 - half8; // of a head: half8 that turn two groups each, and the groups that do not turn
    const Order order(head_counts, by_head);
    uint4* out = dqkv + (size_t)token * ld8;
    for (int t = threadIdx.x; t < (order.q + order.kv) * units; t += blockDim.x) {
        const int head = t / units, i = t % units;
        const uint4* source = head < order.q ? dq + ((size_t)token * order.q + head) * d8 : dk + ((size_t)token * order.kv + head - order.q) * d8;
        uint4* target = out + order.turning(head) * d8;
        if (i >= half8) {
            target[half8 + i] = source[half8 + i];
            continue;
        }
        typedef Pairs<SIDE_BY_SIDE> P;
        uint4 a = source[P::first(i, half8)], b = source[P::second(i, half8)];
        P::turn(a, b, cosine, sine, ((size_t)token * half8 + i) * 2, -1.0f);
        target[P::first(i, half8)] = a;
        target[P::second(i, half8)] = b;
    }
    for (int t = threadIdx.x; t < order.kv * d8; t += blockDim.x)
        out[order.value(t / d8) * d8 + t % d8] = dv[(size_t)token * order.kv * d8 + t];
}

// The same where other numbers of dimensions turn: a thread for a pair, lengths in values.
template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_pair(const u16* source, u16* target, int i, int half, float c, float s) {
    const int p = SIDE_BY_SIDE ? 2 * i : i, q = SIDE_BY_SIDE ? 2 * i + 1 : i + half;
    const float a = to_float(source[p]), b = to_float(source[q]);
    target[p] = to_bf16(a * c - b * s);
    target[q] = to_bf16(b * c + a * s);
}

template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_heads_narrow(u16* qkv, const float* cosine, const float* sine, int head_counts, int half, int ld, int d, int by_head) {
    const int token = blockIdx.x;
    const Order order(head_counts, by_head);
    for (int t = threadIdx.x; t < (order.q + order.kv) * half; t += blockDim.x) {
        u16* start = qkv + (size_t)token * ld + order.turning(t / half) * d;
        const size_t angle = (size_t)token * half + t % half;
        turn_pair<SIDE_BY_SIDE>(start, start, t % half, half, cosine[angle], sine[angle]);
    }
}

template <bool SIDE_BY_SIDE>
__device__ __forceinline__ void turn_back_narrow(
    const u16* dq, const u16* dk, const u16* dv, const float* cosine, const float* sine, u16* dqkv, int head_counts, int half, int ld, int d, int by_head) {
    const int token = blockIdx.x, units = d - half;
    const Order order(head_counts, by_head);
    u16* out = dqkv + (size_t)token * ld;
    for (int t = threadIdx.x; t < (order.q + order.kv) * units; t += blockDim.x) {
        const int head = t / units, i = t % units;
        const u16* source = head < order.q ? dq + ((size_t)token * order.q + head) * d : dk + ((size_t)token * order.kv + head - order.q) * d;
        u16* target = out + order.turning(head) * d;
        const size_t angle = (size_t)token * half + i;
        if (i < half) turn_pair<SIDE_BY_SIDE>(source, target, i, half, cosine[angle], -sine[angle]);
        else target[half + i] = source[half + i];
    }
    for (int t = threadIdx.x; t < order.kv * d; t += blockDim.x)
        out[order.value(t / d) * d + t % d] = dv[(size_t)token * order.kv * d + t];
}

#define ROPE(NAME, SIDE_BY_SIDE) \
    extern "C" __global__ void NAME(uint4* qkv, const float4* cosine, const float4* sine, int head_counts, int half8, int ld8, int d8, int by_head) { \
        turn_heads<SIDE_BY_SIDE>(qkv, cosine, sine, head_counts, half8, ld8, d8, by_head); } \
    extern "C" __global__ void NAME##_backward( \
        const uint4* dq, const uint4* dk, const uint4* dv, const float4* cosine, const float4* sine, uint4* dqkv, int head_counts, int half8, \
        int ld8, int d8, int by_head) { turn_back<SIDE_BY_SIDE>(dq, dk, dv, cosine, sine, dqkv, head_counts, half8, ld8, d8, by_head); } \
    extern "C" __global__ void NAME##_narrow(u16* qkv, const float* cosine, const float* sine, int head_counts, int half, int ld, int d, int by_head) { \
        turn_heads_narrow<SIDE_BY_SIDE>(qkv, cosine, sine, head_counts, half, ld, d, by_head); } \
    extern "C" __global__ void NAME##_narrow_backward( \
        const u16* dq, const u16* dk, const u16* dv, const float* cosine, const float* sine, u16* dqkv, int head_counts, int half, int ld, int d, \
        int by_head) { turn_back_narrow<SIDE_BY_SIDE>(dq, dk, dv, cosine, sine, dqkv, head_counts, half, ld, d, by_head); }
ROPE(rope, false)
ROPE(rope_side_by_side, true)
