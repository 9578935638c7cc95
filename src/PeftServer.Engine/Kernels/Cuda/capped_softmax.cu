// Softmax of scores c tanh(scale s / c) over the keys that a query sees. Rows of bfloat16 [heads, rows, keys], part of wider ones; a block
// is a row: row i of a head is that of query first + i % queries, which sees keys up to itself, with a window the last so many.
// What c bounds needs no maximum: e^v stays in the range of float32 (c is at most 80).
struct Seen {
    int from, to; // keys, the second not included
    __device__ __forceinline__ Seen(int keys, int queries, int first, int window) {
        const int query = first + blockIdx.x % queries;
        to = min(query + 1, keys);
        from = window ? max(0, query + 1 - window) : 0;
    }
    __device__ __forceinline__ bool has(int key) const { return key >= from && key < to; }
};

extern "C" __global__ void capped_softmax(uint4* scores, int keys, int ld8, int queries, int first, int window, float scale, float cap) {
    uint4* row = scores + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * ld8;
    const Seen seen(keys, queries, first, window);
    const float inner = scale / cap;
    float sum = 0;
    for (int i = seen.from / 8 + threadIdx.x; i * 8 < seen.to; i += blockDim.x) {
        float v[8];
        unpack(row[i], v);
        for (int k = 0; k < 8; k++) sum += seen.has(i * 8 + k) ? __expf(cap * quick_tanh(v[k] * inner)) : 0.0f;
    }
    const float inverse = 1.0f / block_sum(sum);
    for (int i = threadIdx.x; i * 8 < keys; i += blockDim.x) {
        float v[8];
        unpack(row[i], v);
        for (int k = 0; k < 8; k++) v[k] = seen.has(i * 8 + k) ? __expf(cap * quick_tanh(v[k] * inner)) * inverse : 0.0f;
        row[i] = pack(v);
    }
}

// Overwrites the scores with their softmax and grad, the gradient of that, with the gradient of the scores.
extern "C" __global__ void capped_softmax_backward(
    uint4* scores, uint4* grad, int keys, int ld8, int queries, int first, int window, float scale, float cap) {
    const size_t at = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * ld8;
    uint4 *row = scores + at, *slopes = grad + at;
    const Seen seen(keys, queries, first, window);
    const float inner = scale / cap;
    float sum = 0, dot = 0;
    for (int i = seen.from / 8 + threadIdx.x; i * 8 < seen.to; i += blockDim.x) {
        float v[8], d[8];
        unpack(row[i], v);
        unpack(slopes[i], d);
        for (int k = 0; k < 8; k++) {
            const float e = seen.has(i * 8 + k) ? __expf(cap * quick_tanh(v[k] * inner)) : 0.0f;
            sum += e;
            dot += seen.has(i * 8 + k) ? e * d[k] : 0.0f;
        }
    }
    const float inverse = 1.0f / block_sum(sum);
    const float mean = block_sum(dot) * inverse;
    for (int i = threadIdx.x; i * 8 < keys; i += blockDim.x) {
        float v[8], d[8];
        unpack(row[i], v);
        unpack(slopes[i], d);
        for (int k = 0; k < 8; k++) {
            const float t = quick_tanh(v[k] * inner);
            v[k] = seen.has(i * 8 + k) ? __expf(cap * t) * inverse : 0.0f;
            d[k] = seen.has(i * 8 + k) ? v[k] * (d[k] - mean) * (1.0f - t * t) * scale : 0.0f;
        }
        row[i] = pack(v);
        slopes[i] = pack(d);
    }
}
