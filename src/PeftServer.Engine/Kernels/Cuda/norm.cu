// Norms of rows, by form. RMS: x / rms(x), rounded, * weight (Llama). RMS_OFFSET: the same * (1 + weight) without rounding between
// (Gemma). LAYER: (x - mean) / deviation * weight + bias, where there is one (Cohere). NO_NORM: the rows as they are.
enum { RMS, RMS_OFFSET, LAYER, NO_NORM };

// One block a token, a thread for some groups of eight values: few threads with many loads under way wait less for one another.
// Values stay in registers, so each is read once.
#define CHUNKS 4
#define BACKWARD_CHUNKS 2

// sum = x + delta (x alone where delta is null), rounded to bfloat16 as the stream is kept; normed = the norm of the sum. stats: the
// factor of each row, and behind them the means for LAYER. x and normed may be parts of wider rows: ld_x8, ld_normed8 are their widths,
// in units of eight values like n8.
template <int FORM>
__device__ __forceinline__ void add_norm(
    const uint4* x, const uint4* delta, const uint4* weight, const uint4* bias, uint4* sum, uint4* normed, float* stats, int n8, int ld_x8,
    int ld_normed8, float eps) {
    const size_t row = (size_t)blockIdx.x * n8;
    float v[CHUNKS][8];
    float squares = 0, total = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            unpack(x[(size_t)blockIdx.x * ld_x8 + i], v[c]);
            if (delta) {
                float d[8];
                unpack(delta[row + i], d);
                for (int k = 0; k < 8; k++) v[c][k] = to_float(to_bf16(v[c][k] + d[k]));
            }
            if (sum) sum[row + i] = pack(v[c]);
            for (int k = 0; k < 8; k++) {
                squares += v[c][k] * v[c][k];
                total += v[c][k];
            }
        }
    }
    float r = 1, mean = 0;
    if (FORM == LAYER) {
        mean = block_sum(total) / (n8 * 8);
        squares = 0; // around the mean: few digits are left of the difference of two large sums
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (threadIdx.x + c * blockDim.x < n8)
                for (int k = 0; k < 8; k++) squares += (v[c][k] - mean) * (v[c][k] - mean);
        if (threadIdx.x == 0) stats[gridDim.x + blockIdx.x] = mean;
    }
    if (FORM != NO_NORM) {
        r = rsqrtf(block_sum(squares) / (n8 * 8) + eps);
        if (threadIdx.x == 0) stats[blockIdx.x] = r;
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            float w[8], b[8];
            if (FORM != NO_NORM) unpack(weight[i], w);
            if (FORM == LAYER && bias) unpack(bias[i], b);
            for (int k = 0; k < 8; k++) {
                if (FORM == RMS) v[c][k] = to_float(to_bf16(v[c][k] * r)) * w[k];
                if (FORM == RMS_OFFSET) v[c][k] = v[c][k] * r * (1.0f + w[k]);
                if (FORM == LAYER) v[c][k] = (v[c][k] - mean) * r * w[k] + (bias ? b[k] : 0.0f);
            }
            normed[(size_t)blockIdx.x * ld_normed8 + i] = pack(v[c]);
        }
    }
}

// grad_x = residual + r (g - x̂ mean(g x̂)), less r mean(g) for LAYER, with g = grad * weight, x̂ = x * r or (x - mean) * r. residual may be
// null or grad_x itself, grad_x may be grad. All may be parts of wider rows, the residual of as wide ones as grad_x.
template <int FORM>
__device__ __forceinline__ void norm_backward(
    const uint4* grad, const uint4* x, const uint4* weight, const float* stats, const uint4* residual, uint4* grad_x, int n8, int ld_grad8,
    int ld_x8, int ld_out8) {
    const float r = FORM == NO_NORM ? 1.0f : stats[blockIdx.x];
    const float shift = FORM == LAYER ? stats[gridDim.x + blockIdx.x] : 0.0f;
    float g[BACKWARD_CHUNKS][8], h[BACKWARD_CHUNKS][8];
    float dot = 0, total = 0;
#pragma unroll
    for (int c = 0; c < BACKWARD_CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            unpack(grad[(size_t)blockIdx.x * ld_grad8 + i], g[c]);
            if (FORM != NO_NORM) {
                float w[8];
                unpack(x[(size_t)blockIdx.x * ld_x8 + i], h[c]);
                unpack(weight[i], w);
                for (int k = 0; k < 8; k++) {
                    g[c][k] *= FORM == RMS_OFFSET ? 1.0f + w[k] : w[k];
                    h[c][k] = FORM == LAYER ? (h[c][k] - shift) * r : h[c][k] * r;
                    dot += g[c][k] * h[c][k];
                    total += g[c][k];
                }
            }
        }
    }
    const float mean = FORM == NO_NORM ? 0.0f : block_sum(dot) / (n8 * 8);
    const float center = FORM == LAYER ? block_sum(total) / (n8 * 8) : 0.0f;
#pragma unroll
    for (int c = 0; c < BACKWARD_CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            float out[8];
            for (int k = 0; k < 8; k++) out[k] = FORM == NO_NORM ? g[c][k] : r * (g[c][k] - center - h[c][k] * mean);
            if (residual) {
                float d[8];
                unpack(residual[(size_t)blockIdx.x * ld_out8 + i], d);
                for (int k = 0; k < 8; k++) out[k] += d[k];
            }
            grad_x[(size_t)blockIdx.x * ld_out8 + i] = pack(out);
        }
    }
}

#define NORM(NAME, FORM) \
    extern "C" __global__ void add_##NAME( \
        const uint4* x, const uint4* delta, const uint4* weight, const uint4* bias, uint4* sum, uint4* normed, float* stats, int n8, int ld_x8, \
        int ld_normed8, float eps) { add_norm<FORM>(x, delta, weight, bias, sum, normed, stats, n8, ld_x8, ld_normed8, eps); } \
    extern "C" __global__ void NAME##_backward( \
        const uint4* grad, const uint4* x, const uint4* weight, const float* stats, const uint4* residual, uint4* grad_x, int n8, int ld_grad8, \
        int ld_x8, int ld_out8) { norm_backward<FORM>(grad, x, weight, stats, residual, grad_x, n8, ld_grad8, ld_x8, ld_out8); }
NORM(rms_norm, RMS)
NORM(offset_rms_norm, RMS_OFFSET)
NORM(layer_norm, LAYER)
NORM(no_norm, NO_NORM)
