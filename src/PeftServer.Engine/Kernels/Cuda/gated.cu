// Activations a(x) = x s(x) with s = sigmoid of x (SiLU), or of 2 sqrt(2/pi) (x + 0.044715 x^3), which is GELU by its tanh approximation,
// or the normal distribution (GELU itself), or 1 above 0 (ReLU).
enum { SILU, GELU, EXACT_GELU, RELU };

template <int GATE>
__device__ __forceinline__ float opening(float x) {
    if (GATE == RELU) return x > 0.0f ? 1.0f : 0.0f;
    if (GATE == EXACT_GELU) return 0.5f * (1.0f + erff(x * 0.70710678f));
    const float z = GATE == SILU ? x : x * (1.5957691216f + 0.0713548163f * x * x);
    return 1.0f / (1.0f + __expf(-z));
}

// a'(x), given s(x).
template <int GATE>
__device__ __forceinline__ float slope(float x, float s) {
    if (GATE == RELU) return s;
    if (GATE == EXACT_GELU) return s + x * 0.39894228f * __expf(-0.5f * x * x);
    const float z = GATE == SILU ? x : x * (1.5957691216f + 0.2140644488f * x * x); // x times the derivative of what s is the sigmoid of
    return s * (1.0f + z * (1.0f - s));
}

// A grid of one dimension, as others end at 65,535: where this thread is among the groups of its row.
struct Place { size_t row; int i; };
__device__ __forceinline__ Place place(int f8) {
    const int parts = (f8 + blockDim.x - 1) / blockDim.x;
    return { blockIdx.x / parts, (int)(blockIdx.x % parts * blockDim.x + threadIdx.x) };
}

// hidden = a(gate) * up for rows [gate | up] of 2 f8 groups of eight; both may be parts of wider rows.
template <int GATE>
__device__ __forceinline__ void gated(const uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_hidden8) {
    const Place at = place(f8);
    if (at.i >= f8) return;
    const size_t row = at.row * ld_gate_up8 + at.i;
    float g[8], u[8];
    unpack(gate_up[row], g);
    unpack(gate_up[row + f8], u);
    for (int k = 0; k < 8; k++) g[k] = g[k] * opening<GATE>(g[k]) * u[k];
    hidden[at.row * ld_hidden8 + at.i] = pack(g);
}

// Overwrites [gate | up] with their gradients, and writes a(gate) * up on the way: the backward needs it once more.
template <int GATE>
__device__ __forceinline__ void gated_backward(const uint4* grad, uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_grad8) {
    const Place at = place(f8);
    if (at.i >= f8) return;
    const size_t row = at.row * ld_gate_up8 + at.i;
    float g[8], u[8], d[8], h[8];
    unpack(gate_up[row], g);
    unpack(gate_up[row + f8], u);
    unpack(grad[at.row * ld_grad8 + at.i], d);
    for (int k = 0; k < 8; k++) {
        float s = opening<GATE>(g[k]);
        float up = d[k] * g[k] * s;
        h[k] = g[k] * s * u[k];
        g[k] = d[k] * u[k] * slope<GATE>(g[k], s);
        u[k] = up;
    }
    hidden[at.row * f8 + at.i] = pack(h);
    gate_up[row] = pack(g);
    gate_up[row + f8] = pack(u);
}

// hidden = a(x) without a gate: rows of f8 groups, either may be a part of wider rows.
template <int GATE>
__device__ __forceinline__ void activated(const uint4* x, uint4* hidden, int f8, int ld_x8, int ld_hidden8) {
    const Place at = place(f8);
    if (at.i >= f8) return;
    float v[8];
    unpack(x[at.row * ld_x8 + at.i], v);
    for (int k = 0; k < 8; k++) v[k] *= opening<GATE>(v[k]);
    hidden[at.row * ld_hidden8 + at.i] = pack(v);
}

// Overwrites x with its gradient, and writes a(x) on the way.
template <int GATE>
__device__ __forceinline__ void activated_backward(const uint4* grad, uint4* x, uint4* hidden, int f8, int ld_x8, int ld_grad8) {
    const Place at = place(f8);
    if (at.i >= f8) return;
    float v[8], d[8], h[8];
    unpack(x[at.row * ld_x8 + at.i], v);
    unpack(grad[at.row * ld_grad8 + at.i], d);
    for (int k = 0; k < 8; k++) {
        const float s = opening<GATE>(v[k]);
        h[k] = v[k] * s;
        v[k] = d[k] * slope<GATE>(v[k], s);
    }
    hidden[at.row * f8 + at.i] = pack(h);
    x[at.row * ld_x8 + at.i] = pack(v);
}

#define ACTIVATION(NAME, GATE) \
    extern "C" __global__ void NAME##_gate(const uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_hidden8) { \
        gated<GATE>(gate_up, hidden, f8, ld_gate_up8, ld_hidden8); } \
    extern "C" __global__ void NAME##_gate_backward(const uint4* grad, uint4* gate_up, uint4* hidden, int f8, int ld_gate_up8, int ld_grad8) { \
        gated_backward<GATE>(grad, gate_up, hidden, f8, ld_gate_up8, ld_grad8); } \
    extern "C" __global__ void NAME(const uint4* x, uint4* hidden, int f8, int ld_x8, int ld_hidden8) { \
        activated<GATE>(x, hidden, f8, ld_x8, ld_hidden8); } \
    extern "C" __global__ void NAME##_backward(const uint4* grad, uint4* x, uint4* hidden, int f8, int ld_x8, int ld_grad8) { \
        activated_backward<GATE>(grad, x, hidden, f8, ld_x8, ld_grad8); }
ACTIVATION(silu, SILU)
ACTIVATION(gelu, GELU)
ACTIVATION(exact_gelu, EXACT_GELU)
ACTIVATION(relu, RELU)
