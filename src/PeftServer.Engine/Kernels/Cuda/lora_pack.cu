// Copies trained float32 matrices, scaled, into bfloat16 blocks of wider ones: A's into their stacks, s·B's beside the frozen weights.
struct PackJob { const float* source; u16* target; int rows, columns, ld_target; float scale; };

extern "C" __global__ void lora_pack(const PackJob* jobs) {
    const PackJob job = jobs[blockIdx.y];
    const int count = job.rows * job.columns;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        job.target[(size_t)(i / job.columns) * job.ld_target + i % job.columns] = to_bf16(job.source[i] * job.scale);
}

// The way back: adds blocks of the bfloat16 gradients of stacked matrices, scaled, to float32 ones.
struct CollectJob { float* target; int from_b, rows, columns, row, column; float scale; };

extern "C" __global__ void lora_collect(const CollectJob* jobs, const u16* d_a, const u16* d_b, int ld_a, int ld_b) {
    const CollectJob job = jobs[blockIdx.y];
    const u16* source = job.from_b ? d_b : d_a;
    const int ld = job.from_b ? ld_b : ld_a;
    const int count = job.rows * job.columns;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        job.target[i] += job.scale * to_float(source[(size_t)(job.row + i / job.columns) * ld + job.column + i % job.columns]);
}
