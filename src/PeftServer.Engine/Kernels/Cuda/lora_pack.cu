// Copies trained float32 matrices, scaled, into bfloat16 blocks of wider ones: A's into their stacks, s·B's beside the frozen weights.
struct PackJob { const float* source; u16* target; int rows, columns, ld_target; float scale; };

extern "C" __global__ void lora_pack(const PackJob* jobs) {
    const PackJob job = jobs[blockIdx.y];
    const int count = job.rows * job.columns;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        job.target[(size_t)(i / job.columns) * job.ld_target + i % job.columns] = to_bf16(job.source[i] * job.scale);
}
