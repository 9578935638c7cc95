// tanh by one exponential, within two units in the last place of bfloat16 everywhere.
__device__ __forceinline__ float quick_tanh(float x) { return 1.0f - 2.0f / (1.0f + __expf(2.0f * x)); }

#define NEVER -3.4e38f

// Group i of a row of scores as the loss takes them: factor * score, and of that cap * tanh(that / cap) where CAPPED. Columns from
// vocabulary on are none.
template <bool CAPPED>
__device__ __forceinline__ void load_scores(const uint4* row, int i, int vocabulary, float factor, float cap, float* v) {
    unpack(row[i], v);
    for (int k = 0; k < 8; k++) {
        v[k] *= factor;
        if (CAPPED) v[k] = cap * quick_tanh(v[k] / cap);
        if (i * 8 + k >= vocabulary) v[k] = NEVER;
    }
}

// One block a row of scores: adds -log p(target) to *loss, counts a hit, and overwrites the scores with
// scale * (softmax - onehot), carried back through cap and factor: the gradient. Two reads and one write of the row.
template <bool CAPPED>
__device__ __forceinline__ void loss_of_scores(
    uint4* logits, const long long* targets, float* loss, float* correct, int vocabulary, int ld8, float scale, float factor, float cap) {
    uint4* row = logits + (size_t)blockIdx.x * ld8;
    const int n8 = (vocabulary + 7) / 8;
    const long long target = targets[blockIdx.x];
    float score = to_float(((const u16*)row)[target]) * factor;
    if (CAPPED) score = cap * quick_tanh(score / cap);

    // A running maximum and the sum of exponents below it, per thread.
    float highest = NEVER, sum = 0;
    for (int i = threadIdx.x; i < n8; i += blockDim.x) {
        float v[8];
        load_scores<CAPPED>(row, i, vocabulary, factor, cap, v);
        float m = highest;
        for (int k = 0; k < 8; k++) m = fmaxf(m, v[k]);
        sum *= __expf(highest - m);
        for (int k = 0; k < 8; k++) sum += __expf(v[k] - m);
        highest = m;
    }
    __shared__ float maxima[32];
    float m = highest;
    for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
    if ((threadIdx.x & 31) == 0) maxima[threadIdx.x >> 5] = m;
    __syncthreads();
    for (int w = 0; w < (blockDim.x >> 5); w++) m = fmaxf(m, maxima[w]);
    sum = block_sum(sum * __expf(highest - m));

    if (threadIdx.x == 0) {
        atomicAdd(loss, __logf(sum) + m - score);
        if (score >= m) atomicAdd(correct, 1.0f);
    }
    const float inverse = scale / sum;
    for (int i = threadIdx.x; i < n8; i += blockDim.x) {
        float v[8];
        load_scores<CAPPED>(row, i, vocabulary, factor, cap, v);
        for (int k = 0; k < 8; k++) {
            const float slope = CAPPED && i * 8 + k < vocabulary ? factor * (1.0f - (v[k] / cap) * (v[k] / cap)) : factor;
            v[k] = (__expf(v[k] - m) * inverse - (i * 8 + k == target ? scale : 0.0f)) * slope;
        }
        row[i] = pack(v);
    }
}

extern "C" __global__ void cross_entropy(
    uint4* logits, const long long* targets, float* loss, float* correct, int vocabulary, int ld8, float scale, float factor, float cap) {
    loss_of_scores<false>(logits, targets, loss, correct, vocabulary, ld8, scale, factor, cap);
}

extern "C" __global__ void capped_cross_entropy(
    uint4* logits, const long long* targets, float* loss, float* correct, int vocabulary, int ld8, float scale, float factor, float cap) {
    loss_of_scores<true>(logits, targets, loss, correct, vocabulary, ld8, scale, factor, cap);
}
