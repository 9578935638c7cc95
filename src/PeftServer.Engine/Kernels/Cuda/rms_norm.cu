// One block a token, a thread for some groups of eight values: few threads with many loads under way wait less for one another.
// Values stay in registers, so each is read once.
#define CHUNKS 4
#define BACKWARD_CHUNKS 2

// sum = x + delta (x alone where delta is null), rounded to bfloat16 as the stream is kept; normed = sum / rms(sum) * weight.
// normed may be a part of wider rows: ld_normed is their width. In units of eight values: n8, ld_normed8.
extern "C" __global__ void add_rms_norm(
    const uint4* x, const uint4* delta, const uint4* weight, uint4* sum, uint4* normed, float* rstd, int n8, int ld_normed8, float eps) {
    const size_t row = (size_t)blockIdx.x * n8;
    float v[CHUNKS][8];
    float squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            unpack(x[row + i], v[c]);
            if (delta) {
                float d[8];
                unpack(delta[row + i], d);
                for (int k = 0; k < 8; k++) v[c][k] = to_float(to_bf16(v[c][k] + d[k]));
            }
            if (sum) sum[row + i] = pack(v[c]);
            for (int k = 0; k < 8; k++) squares += v[c][k] * v[c][k];
        }
    }
    float r = rsqrtf(block_sum(squares) / (n8 * 8) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            float w[8];
            unpack(weight[i], w);
            for (int k = 0; k < 8; k++) v[c][k] = to_float(to_bf16(v[c][k] * r)) * w[k];
            normed[(size_t)blockIdx.x * ld_normed8 + i] = pack(v[c]);
        }
    }
}

// grad_x = residual + rstd * (g - x̂ mean(g x̂)) with g = grad * weight, x̂ = x * rstd. residual may be null or grad_x itself.
// All but x may be parts of wider rows.
extern "C" __global__ void rms_norm_backward(
    const uint4* grad, const uint4* x, const uint4* weight, const float* rstd, const uint4* residual, uint4* grad_x, int n8, int ld_grad8, int ld_out8) {
    const size_t row = (size_t)blockIdx.x * n8;
    const float r = rstd[blockIdx.x];
    float g[BACKWARD_CHUNKS][8], h[BACKWARD_CHUNKS][8];
    float dot = 0;
#pragma unroll
    for (int c = 0; c < BACKWARD_CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            float w[8];
            unpack(grad[(size_t)blockIdx.x * ld_grad8 + i], g[c]);
            unpack(x[row + i], h[c]);
            unpack(weight[i], w);
            for (int k = 0; k < 8; k++) {
                g[c][k] *= w[k];
                h[c][k] *= r;
                dot += g[c][k] * h[c][k];
            }
        }
    }
    float mean = block_sum(dot) / (n8 * 8);
#pragma unroll
    for (int c = 0; c < BACKWARD_CHUNKS; c++) {
        int i = threadIdx.x + c * blockDim.x;
        if (i < n8) {
            float out[8];
            for (int k = 0; k < 8; k++) out[k] = r * (g[c][k] - h[c][k] * mean);
            if (residual) {
                float d[8];
                unpack(residual[(size_t)blockIdx.x * ld_out8 + i], d);
                for (int k = 0; k < 8; k++) out[k] += d[k];
            }
            grad_x[(size_t)blockIdx.x * ld_out8 + i] = pack(out);
        }
    }
}
