// hidden = silu(gate) * up for rows [gate | up] of 2 f8 groups of eight; both may be parts of wider rows.
extern "C" __global__ void swiglu(const uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_hidden8) {
    const size_t row = (size_t)blockIdx.y * ld_gate_up8;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < f8; i += gridDim.x * blockDim.x) {
        float g[8], u[8];
        unpack(gate_up[row + i], g);
        unpack(gate_up[row + f8 + i], u);
        for (int k = 0; k < 8; k++) g[k] = g[k] / (1.0f + __expf(-g[k])) * u[k];
        hidden[(size_t)blockIdx.y * ld_hidden8 + i] = pack(g);
    }
}

// Overwrites [gate | up] with their gradients, and writes silu(gate) * up on the way: the backward needs it once more.
extern "C" __global__ void swiglu_backward(const uint4* grad, uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_grad8) {
    const size_t row = (size_t)blockIdx.y * ld_gate_up8;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < f8; i += gridDim.x * blockDim.x) {
        float g[8], u[8], d[8], h[8];
        unpack(gate_up[row + i], g);
        unpack(gate_up[row + f8 + i], u);
        unpack(grad[(size_t)blockIdx.y * ld_grad8 + i], d);
        for (int k = 0; k < 8; k++) {
            float s = 1.0f / (1.0f + __expf(-g[k]));
            float up = d[k] * g[k] * s;
            h[k] = g[k] * s * u[k];
            g[k] = d[k] * u[k] * s * (1.0f + g[k] * (1.0f - s));
            u[k] = up;
        }
        hidden[(size_t)blockIdx.y * f8 + i] = pack(h);
        gate_up[row + i] = pack(g);
        gate_up[row + f8 + i] = pack(u);
    }
}
