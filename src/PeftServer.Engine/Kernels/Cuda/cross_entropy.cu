// One block a row of scores: adds -log p(target) to *loss, counts a hit, and overwrites the scores with
// scale * (softmax - onehot), the gradient. Two reads and one write of the row.
extern "C" __global__ void cross_entropy(uint4* logits, const long long* targets, float* loss, float* correct, int n8, float scale) {
    uint4* row = logits + (size_t)blockIdx.x * n8;
    const long long target = targets[blockIdx.x];
    const float score = to_float(((const u16*)row)[target]);

    // A running maximum and the sum of exponents below it, per thread.
    float highest = -3.4e38f, sum = 0;
    for (int i = threadIdx.x; i < n8; i += blockDim.x) {
        float v[8];
        unpack(row[i], v);
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
        unpack(row[i], v);
        for (int k = 0; k < 8; k++) v[k] = __expf(v[k] - m) * inverse - (i * 8 + k == target ? scale : 0.0f);
        row[i] = pack(v);
    }
}
