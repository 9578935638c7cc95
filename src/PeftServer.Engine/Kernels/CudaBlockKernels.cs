using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Kernels;

/// <summary>The kernels of <c>Kernels/Cuda</c>, for bfloat16 on one GPU, compiled when this is made.</summary>
internal sealed unsafe class CudaBlockKernels : BlockKernels
{
    private static readonly string[] Sources =
        ["common.cuh", "norm.cu", "rope.cu", "gated.cu", "cross_entropy.cu", "capped_softmax.cu", "lora_pack.cu", "nf4.cu", "fp8.cu", "head_norm.cu"];

    private readonly int _device;
    private readonly Dictionary<string, nint> _functions = [];
    private readonly nint _module;
    private readonly SideStream _side;
    private readonly CudnnAttention _cudnn = new();

    /// <summary>Widest rows that the norms take: a backward thread has two groups of eight values.</summary>
    public const int MaxHidden = 16_384;

    private const int NormChunks = 4;
    private const int BackwardChunks = 2;

    /// <summary>Widest rows that <see cref="QuantizeRows"/> takes.</summary>
    public const int MaxQuantized = 32_768;

    /// <summary>Highest soft cap of attention's scores: their exponentials are added without a maximum taken off.</summary>
    public const int MaxSoftCap = 80;

    private const int Fp8Threads = 1024;
    private const int CappedThreads = 128;

    public CudaBlockKernels(int device)
    {
        _device = device;
        using var touched = zeros(1, device: torch.device($"cuda:{device}")); // makes libtorch's context this thread's
        _side = new SideStream(device);
        _module = CudaDriver.LoadModule(Nvrtc.Compile(string.Concat(Sources.Select(Source)), CudaDriver.Architecture(device)));
    }

    public override void Beside(Action work, params ReadOnlySpan<Tensor> reads) => _side.Run(work, reads);

    public override void Join() => _side.Join();

    public override void AddNorm(Tensor x, Tensor? delta, NormWeights norm, Tensor? sum, Tensor normed, Tensor stats)
    {
        var (a, b, c, d, e, f, g) = (At(x), At(delta), At(norm.Weight), At(norm.Bias), At(sum), At(normed), At(stats));
        var (n8, xLd8, ld8, little) = ((int)x.size(1) / 8, (int)x.stride(0) / 8, (int)normed.stride(0) / 8, (float)norm.Eps);
        Launch($"add_{Name(norm.Form)}", ((int)x.size(0), 1), Threads((n8 + NormChunks - 1) / NormChunks), &a, &b, &c, &d, &e, &f, &g, &n8, &xLd8, &ld8, &little);
    }

    public override void NormBackward(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor? residual, Tensor gradX)
    {
        var (a, b, c, d, e, f) = (At(grad), At(x), At(norm.Weight), At(stats), At(residual), At(gradX));
        var (n8, ld8, xLd8, outLd8) = ((int)x.size(1) / 8, (int)grad.stride(0) / 8, (int)x.stride(0) / 8, (int)gradX.stride(0) / 8);
        Launch($"{Name(norm.Form)}_backward", ((int)x.size(0), 1), Threads((n8 + BackwardChunks - 1) / BackwardChunks), &a, &b, &c, &d, &e, &f, &n8, &ld8, &xLd8, &outLd8);
    }

    public override void AddBias(Tensor rows, Tensor bias)
    {
        var (a, b) = (At(rows), At(bias));
        var (n8, ld8) = ((int)rows.size(1) / 8, (int)rows.stride(0) / 8);
        Launch("add_bias", ((int)rows.size(0), (n8 + 255) / 256), 256, &a, &b, &n8, &ld8);
    }

    public override void HeadNorm(Tensor qkv, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads)
    {
        var (a, b, c, d) = (At(qkv), At(query.Weight), At(key.Weight), At(rstd));
        var (counts, d8, ld8, little) = (Counts(heads), heads.HeadDim / 8, (int)qkv.stride(0) / 8, (float)query.Eps);
        Launch(HeadNormName(query), ((int)qkv.size(0), 1), 256, &a, &b, &c, &d, &counts, &d8, &ld8, &little);
    }

    public override void HeadNormBackward(Tensor dqkv, Tensor qk, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads)
    {
        var (a, b, c, d, e) = (At(dqkv), At(qk), At(query.Weight), At(key.Weight), At(rstd));
        var (counts, d8, ld8) = (Counts(heads), heads.HeadDim / 8, (int)dqkv.stride(0) / 8);
        Launch($"{HeadNormName(query)}_backward", ((int)dqkv.size(0), 1), 256, &a, &b, &c, &d, &e, &counts, &d8, &ld8);
    }

    public override void Rope(Tensor qkv, Tensor cos, Tensor sin, HeadLayout heads)
    {
        var (a, b, c) = (At(qkv), At(cos), At(sin));
        var (name, unit) = Rope(heads);
        var (counts, half, ld, d, order) = (Counts(heads), heads.Turning / 2 / unit, (int)qkv.stride(0) / unit, heads.HeadDim / unit, heads.HeadByHead ? 1 : 0);
        Launch(name, ((int)qkv.size(0), 1), 256, &a, &b, &c, &counts, &half, &ld, &d, &order);
    }

    public override void RopeBackward(Tensor dq, Tensor dk, Tensor dv, Tensor cos, Tensor sin, Tensor dqkv, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var (a, b, c, d, e, f) = (At(dq.contiguous()), At(dk.contiguous()), At(dv.contiguous()), At(cos), At(sin), At(dqkv));
        var (name, unit) = Rope(heads);
        var (counts, half, ld, width, order) = (Counts(heads), heads.Turning / 2 / unit, (int)dqkv.stride(0) / unit, heads.HeadDim / unit, heads.HeadByHead ? 1 : 0);
        Launch($"{name}_backward", ((int)dqkv.size(0), 1), 256, &a, &b, &c, &d, &e, &f, &counts, &half, &ld, &width, &order);
    }

    /// <summary>The kernel that turns heads, and how many values make a unit of its lengths: those that turn whole groups of eight are the fast ones.</summary>
    private static (string Name, int Unit) Rope(HeadLayout heads) =>
        ((heads.SideBySide ? "rope_side_by_side" : "rope") + (heads.Turning % 16 == 0 ? "" : "_narrow"), heads.Turning % 16 == 0 ? 8 : 1);

    public override void Gate(GateForm form, Tensor gateUp, Tensor hidden)
    {
        var (a, b) = (At(gateUp), At(hidden));
        var (f8, inLd8, ld8) = ((int)gateUp.size(1) / 16, (int)gateUp.stride(0) / 8, (int)hidden.stride(0) / 8);
        Launch($"{Name(form)}_gate", ((f8 + 255) / 256 * (int)gateUp.size(0), 1), 256, &a, &b, &f8, &inLd8, &ld8);
    }

    public override void GateBackward(GateForm form, Tensor grad, Tensor gateUp, Tensor hidden)
    {
        var (a, b, c) = (At(grad), At(gateUp), At(hidden));
        var (f8, ioLd8, ld8) = ((int)gateUp.size(1) / 16, (int)gateUp.stride(0) / 8, (int)grad.stride(0) / 8);
        Launch($"{Name(form)}_gate_backward", ((f8 + 255) / 256 * (int)gateUp.size(0), 1), 256, &a, &b, &c, &f8, &ioLd8, &ld8);
    }

    public override void Activate(GateForm form, Tensor x, Tensor hidden)
    {
        var (a, b) = (At(x), At(hidden));
        var (f8, inLd8, ld8) = ((int)x.size(1) / 8, (int)x.stride(0) / 8, (int)hidden.stride(0) / 8);
        Launch(Name(form), ((f8 + 255) / 256 * (int)x.size(0), 1), 256, &a, &b, &f8, &inLd8, &ld8);
    }

    public override void ActivateBackward(GateForm form, Tensor grad, Tensor x, Tensor hidden)
    {
        var (a, b, c) = (At(grad), At(x), At(hidden));
        var (f8, ioLd8, ld8) = ((int)x.size(1) / 8, (int)x.stride(0) / 8, (int)grad.stride(0) / 8);
        Launch($"{Name(form)}_backward", ((f8 + 255) / 256 * (int)x.size(0), 1), 256, &a, &b, &c, &f8, &ioLd8, &ld8);
    }

    public override void CrossEntropy(Tensor logits, Tensor targets, Tensor loss, Tensor correct, double scale, ScoreForm form)
    {
        var (a, b, c, d) = (At(logits), At(targets), At(loss), At(correct));
        var (vocabulary, ld8, share, factor, cap) = ((int)logits.size(1), (int)logits.stride(0) / 8, (float)scale, (float)form.Factor, (float)(form.Cap ?? 0));
        Launch(form.Cap is null ? "cross_entropy" : "capped_cross_entropy", ((int)logits.size(0), 1), 1024, &a, &b, &c, &d, &vocabulary, &ld8, &share, &factor, &cap);
    }

    public override AttentionState Attention(Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope)
    {
        scope = scope.For(borders);
        if (scope.SoftCap is not null)
        {
            return CappedAttention.Forward(this, q, k, v, borders, scope);
        }

        if (scope.Window is null && borders.CommonLength is { } length && _cudnn.Takes(q.size(2), q.device)
            && _cudnn.TryForward(Rectangle(q, length), Rectangle(k, length), Rectangle(v, length), scope.Scale) is { } state)
        {
            return state with { Output = Rows(state.Output) };
        }

        return Aten.FlashAttention(q, k, v, borders.OnDevice, borders.Longest, scope);
    }

    public override (Tensor Dq, Tensor Dk, Tensor Dv) AttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, PackedBorders borders, AttentionScope scope)
    {
        scope = scope.For(borders);
        if (scope.SoftCap is not null)
        {
            return CappedAttention.Backward(this, grad, q, k, v, borders, scope);
        }

        if (!state.IsRectangle)
        {
            return Aten.FlashAttentionBackward(grad, q, k, v, state, borders.OnDevice, borders.Longest, scope);
        }

        var length = borders.CommonLength!.Value;
        var dense = state with { Output = Rectangle(state.Output, length) };
        var (dq, dk, dv) = CudnnAttention.Backward(
            Rectangle(grad, length), Rectangle(q, length), Rectangle(k, length), Rectangle(v, length), dense, scope.Scale);
        return (Rows(dq), Rows(dk), Rows(dv));
    }

    public override void CappedSoftmax(Tensor scores, CappedRows rows)
    {
        var a = At(scores);
        var (keys, ld8, queries, first, window, scale, cap) = Arguments(scores, rows);
        Launch("capped_softmax", ((int)scores.size(1), (int)scores.size(0)), CappedThreads, &a, &keys, &ld8, &queries, &first, &window, &scale, &cap);
    }

    public override void CappedSoftmaxBackward(Tensor scores, Tensor grad, CappedRows rows)
    {
        var (a, b) = (At(scores), At(grad));
        var (keys, ld8, queries, first, window, scale, cap) = Arguments(scores, rows);
        Launch("capped_softmax_backward", ((int)scores.size(1), (int)scores.size(0)), CappedThreads, &a, &b, &keys, &ld8, &queries, &first, &window, &scale, &cap);
    }

    private static (int Keys, int Ld8, int Queries, int First, int Window, float Scale, float Cap) Arguments(Tensor scores, CappedRows rows) => (
        (int)scores.size(2), (int)scores.stride(1) / 8, rows.Queries, rows.First, rows.Window ?? 0, (float)rows.Scale, (float)rows.Cap);

    public override Tensor GroupedProduct(Tensor x, Tensor matrices, bool turned, Tensor ends)
    {
        using var scope = NewDisposeScope();
        return Aten.GroupedProduct(x, turned ? matrices.transpose(1, 2) : matrices, ends).MoveToOuterDisposeScope();
    }

    public override void Nf4Decode(Nf4Matrix matrix, Tensor target)
    {
        var (a, b, c) = (At(matrix.Codes), At(matrix.AbsMax), At(target));
        var (columns16, ld8) = (matrix.Columns / 16, (int)target.stride(0) / 8);
        Launch("nf4_decode", (matrix.Rows, (columns16 + 255) / 256), 256, &a, &b, &c, &columns16, &ld8);
    }

    public override void QuantizeRows(Tensor x, Tensor? columnScale, Tensor codes, Tensor scale)
    {
        var (a, b, c, d) = (At(x), At(columnScale), At(codes), At(scale));
        var (n8, ld8) = ((int)x.size(1) / 8, (int)x.stride(0) / 8);
        var rounds = (n8 + Fp8Threads - 1) / Fp8Threads;
        Launch("quantize_rows", ((int)x.size(0), 1), Threads((n8 + rounds - 1) / rounds), &a, &b, &c, &d, &n8, &ld8);
    }

    public override void TransposeCodes(Tensor codes, Tensor target)
    {
        var (a, b) = (At(codes), At(target));
        var (rows, columns) = ((int)codes.size(0), (int)codes.size(1));
        Launch("transpose_bytes", (columns / 64, rows / 64), 256, &a, &b, &rows, &columns);
    }

    public override void ScaledProduct(Tensor x, Tensor scaleX, Tensor w, Tensor scaleW, Tensor target)
    {
        using var scope = NewDisposeScope();
        Aten.ScaledProduct(x, w.t(), scaleX.unsqueeze(1), scaleW.unsqueeze(0), target);
    }

    /// <summary>[n, H, D] of sequences of one length as [B, H, T, D]: a view.</summary>
    private static Tensor Rectangle(Tensor x, int length) => x.view(-1, length, x.size(1), x.size(2)).transpose(1, 2);

    private static Tensor Rows(Tensor x) => x.transpose(1, 2).reshape(-1, x.size(1), x.size(3));

    public override ILoraCollector CreateCollector(IReadOnlyList<CollectedBlock> blocks) => new Collector(this, blocks);

    public override ILoraPacker CreatePacker(IReadOnlyList<PackedBlock> blocks) => new Packer(this, blocks);

    private static string Source(string name)
    {
        using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(name)!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd() + "\n";
    }

    private static string Name(NormForm form) => form switch
    {
        NormForm.Rms => "rms_norm",
        NormForm.OffsetRms => "offset_rms_norm",
        NormForm.Layer => "layer_norm",
        _ => "no_norm",
    };

    private static string Name(GateForm form) => form switch
    {
        GateForm.Silu => "silu",
        GateForm.Gelu => "gelu",
        GateForm.ExactGelu => "exact_gelu",
        _ => "relu",
    };

    private static string HeadNormName(NormWeights norm) => norm.Form is NormForm.Rms ? "rms_head_norm" : "offset_rms_head_norm";

    /// <summary>Heads of queries in the lower half of a number, of keys in the upper.</summary>
    private static int Counts(HeadLayout heads) => heads.QueryHeads | (heads.KeyValueHeads << 16);

    /// <summary>Whole warps for so many threads.</summary>
    private static int Threads(int groups) => (groups + 31) / 32 * 32;

    private static nint At(Tensor? tensor) => tensor is null ? 0 : Aten.DataPointer(tensor);

    private void Launch(string name, (int X, int Y) grid, int threads, params ReadOnlySpan<nint> arguments)
    {
        if (!_functions.TryGetValue(name, out var function))
        {
            _functions[name] = function = CudaDriver.Function(_module, name);
        }

        fixed (nint* pointers = arguments)
        {
            CudaDriver.Launch(function, grid, threads, CudaDriver.CurrentStream(_device), (void**)pointers);
        }
    }

    private void Launch(
        string name, (int X, int Y) grid, int threads, void* a, void* b, void* c = null, void* d = null, void* e = null, void* f = null, void* g = null, void* h = null,
        void* i = null, void* j = null, void* k = null) =>
        Launch(name, grid, threads, (nint)a, (nint)b, (nint)c, (nint)d, (nint)e, (nint)f, (nint)g, (nint)h, (nint)i, (nint)j, (nint)k);

    /// <summary>The same layout as PackJob in lora_pack.cu.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PackJob
    {
        public nint Source;
        public nint Target;
        public int Rows;
        public int Columns;
        public int TargetStride;
        public float Scale;
    }

    /// <summary>The same layout as CollectJob in lora_pack.cu.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CollectJob
    {
        public nint Target;
        public int FromB;
        public int Rows;
        public int Columns;
        public int Row;
        public int Column;
        public float Scale;
    }

    private sealed class Collector : ILoraCollector
    {
        private readonly CudaBlockKernels _kernels;
        private readonly IReadOnlyList<CollectedBlock> _blocks;
        private readonly Tensor _jobs;
        private readonly int _count;
        private readonly int _largest;

        public Collector(CudaBlockKernels kernels, IReadOnlyList<CollectedBlock> blocks)
        {
            (_kernels, _blocks, _count) = (kernels, blocks, blocks.Count);
            _largest = (int)blocks.Max(block => block.Target.numel());
            var bytes = new byte[blocks.Count * Unsafe.SizeOf<CollectJob>()];
            var jobs = MemoryMarshal.Cast<byte, CollectJob>(bytes.AsSpan());
            for (var i = 0; i < blocks.Count; i++)
            {
                var block = blocks[i];
                jobs[i] = new CollectJob
                {
                    Target = At(block.Target),
                    FromB = block.FromB ? 1 : 0,
                    Rows = (int)block.Target.size(0),
                    Columns = (int)block.Target.size(1),
                    Row = block.Row,
                    Column = block.Column,
                    Scale = (float)block.Scale,
                };
            }

            _jobs = tensor(bytes, dtype: ScalarType.Byte, device: blocks[0].Target.device).DetachFromDisposeScope();
        }

        public void Add(Tensor dA, Tensor dB)
        {
            var (jobs, a, b) = (At(_jobs), At(dA), At(dB));
            var (ldA, ldB) = ((int)dA.stride(0), (int)dB.stride(0));
            _kernels.Launch("lora_collect", (Math.Min(1024, (_largest + 255) / 256), _count), 256, &jobs, &a, &b, &ldA, &ldB);
        }

        public void Dispose()
        {
            _jobs.Dispose();
            foreach (var block in _blocks)
            {
                block.Target.Dispose();
            }
        }
    }

    private sealed class Packer : ILoraPacker
    {
        private readonly CudaBlockKernels _kernels;
        private readonly Tensor _jobs;
        private readonly int _count;
        private readonly int _largest;

        public Packer(CudaBlockKernels kernels, IReadOnlyList<PackedBlock> blocks)
        {
            (_kernels, _count) = (kernels, blocks.Count);
            _largest = (int)blocks.Max(block => block.Source.numel());
            var bytes = new byte[blocks.Count * Unsafe.SizeOf<PackJob>()];
            var jobs = MemoryMarshal.Cast<byte, PackJob>(bytes.AsSpan());
            for (var i = 0; i < blocks.Count; i++)
            {
                var block = blocks[i];
                jobs[i] = new PackJob
                {
                    Source = At(block.Source),
                    Target = At(block.Target),
                    Rows = (int)block.Source.size(0),
                    Columns = (int)block.Source.size(1),
                    TargetStride = (int)block.Target.stride(0),
                    Scale = (float)block.Scale,
                };
            }

            _jobs = tensor(bytes, dtype: ScalarType.Byte, device: blocks[0].Target.device).DetachFromDisposeScope();
        }

        public void Pack()
        {
            var jobs = At(_jobs);
            _kernels.Launch("lora_pack", (Math.Min(64, (_largest + 255) / 256), _count), 256, &jobs, null);
        }

        public void Dispose() => _jobs.Dispose();
    }
}
