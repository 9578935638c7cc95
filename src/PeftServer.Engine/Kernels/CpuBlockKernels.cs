using System.Numerics;
using System.Runtime.CompilerServices;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Kernels;

/// <summary>
/// The kernels for float32 on a CPU: each reads and writes its rows once, over all of libtorch's threads. What is not here is
/// the plain tensor code.
/// </summary>
internal sealed unsafe class CpuBlockKernels : BlockKernels
{
    private readonly TensorBlockKernels _plain = new();
    private readonly ParallelOptions _threads = new() { MaxDegreeOfParallelism = get_num_threads() };

    public override void AddNorm(Tensor x, Tensor? delta, NormWeights norm, Tensor? sum, Tensor normed, Tensor stats)
    {
        if (norm.Form is NormForm.None)
        {
            _plain.AddNorm(x, delta, norm, sum, normed, stats);
            return;
        }

        var input = At(x);
        var added = At(delta);
        var w = At(norm.Factor);
        var bias = At(norm.Bias);
        var total = At(sum);
        var output = At(normed);
        var scales = At(stats);
        var means = norm.Form is NormForm.Layer ? scales + x.size(0) : null;
        var (width, inputLd, ld, eps) = ((int)x.size(1), x.stride(0), normed.stride(0), (float)norm.Eps);
        EachRow(x.size(0), row =>
        {
            var a = input + (row * inputLd);
            var y = output + (row * ld);
            if (added != null)
            {
                Sum(a, added + (row * width), total + (row * width), width);
                a = total + (row * width);
            }

            var mean = means == null ? 0 : means[row] = Total(a, width) / width;
            var scale = 1 / MathF.Sqrt((Squares(a, mean, width) / width) + eps);
            scales[row] = scale;
            var (center, factor) = (new Vector<float>(mean), new Vector<float>(scale));
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var value = (Vector.Load(a + i) - center) * factor * Vector.Load(w + i);
                Vector.Store(bias == null ? value : value + Vector.Load(bias + i), y + i);
            }
        });
    }

    public override void NormBackward(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor? residual, Tensor gradX)
    {
        if (norm.Form is NormForm.None)
        {
            _plain.NormBackward(grad, x, norm, stats, residual, gradX);
            return;
        }

        var g = At(grad);
        var input = At(x);
        var w = At(norm.Factor);
        var scales = At(stats);
        var means = norm.Form is NormForm.Layer ? scales + x.size(0) : null;
        var rest = At(residual);
        var output = At(gradX);
        var (width, ld, inputLd, outLd) = ((int)x.size(1), grad.stride(0), x.stride(0), gradX.stride(0));
        EachRow(x.size(0), row =>
        {
            var d = g + (row * ld);
            var a = input + (row * inputLd);
            var y = output + (row * outLd);
            var center = new Vector<float>(means == null ? 0 : means[row]);
            var (dot, total) = (Vector<float>.Zero, Vector<float>.Zero);
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var weighted = Vector.Load(d + i) * Vector.Load(w + i);
                dot += weighted * (Vector.Load(a + i) - center);
                total += weighted;
            }

            var scale = scales[row];
            var (factor, share) = (new Vector<float>(scale), new Vector<float>(scale * scale * scale * Vector.Sum(dot) / width));
            var shift = new Vector<float>(means == null ? 0 : scale * Vector.Sum(total) / width);
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var result = (Vector.Load(d + i) * Vector.Load(w + i) * factor) - ((Vector.Load(a + i) - center) * share) - shift;
                Vector.Store(rest == null ? result : result + Vector.Load(rest + (row * outLd) + i), y + i);
            }
        });
    }

    public override void AddBias(Tensor rows, Tensor bias) => _plain.AddBias(rows, bias);

    public override void HeadNorm(Tensor qkv, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads) => _plain.HeadNorm(qkv, query, key, rstd, heads);

    public override void HeadNormBackward(Tensor dqkv, Tensor qk, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads) =>
        _plain.HeadNormBackward(dqkv, qk, query, key, rstd, heads);

    public override void Rope(Tensor qkv, Tensor cos, Tensor sin, HeadLayout heads)
    {
        if (!TurnsWholeVectors(heads))
        {
            _plain.Rope(qkv, cos, sin, heads);
            return;
        }

        var rows = At(qkv);
        var c = At(cos);
        var s = At(sin);
        var (ld, half, count) = ((int)qkv.stride(0), heads.Turning / 2, heads.QueryHeads + heads.KeyValueHeads);
        EachRow(qkv.size(0), row =>
        {
            for (var head = 0; head < count; head++)
            {
                var a = rows + (row * ld) + heads.Column(head);
                Turn(a, a, c + (row * half), s + (row * half), half, 1);
            }
        });
    }

    public override void RopeBackward(Tensor dq, Tensor dk, Tensor dv, Tensor cos, Tensor sin, Tensor dqkv, HeadLayout heads)
    {
        if (!TurnsWholeVectors(heads))
        {
            _plain.RopeBackward(dq, dk, dv, cos, sin, dqkv, heads);
            return;
        }

        using var scope = NewDisposeScope();
        var (qs, ks, vs) = (dq.contiguous(), dk.contiguous(), dv.contiguous());
        var q = At(qs);
        var k = At(ks);
        var v = At(vs);
        var c = At(cos);
        var s = At(sin);
        var output = At(dqkv);
        var (half, queryWidth, keyWidth, ld) = (heads.Turning / 2, heads.QueryWidth, heads.KeyValueWidth, dqkv.stride(0));
        EachRow(dqkv.size(0), row =>
        {
            var to = output + (row * ld);
            for (var head = 0; head < heads.QueryHeads + heads.KeyValueHeads; head++)
            {
                var from = head < heads.QueryHeads ? q + (row * queryWidth) + (head * heads.HeadDim) : k + (row * keyWidth) + ((head - heads.QueryHeads) * heads.HeadDim);
                Turn(from, to + heads.Column(head), c + (row * half), s + (row * half), half, -1);
                Copy(from + (2 * half), to + heads.Column(head) + (2 * half), heads.HeadDim - (2 * half));
            }

            for (var head = 0; head < heads.KeyValueHeads; head++)
            {
                Copy(v + (row * keyWidth) + (head * heads.HeadDim), to + heads.ValueColumn(head), heads.HeadDim);
            }
        });
    }

    public override void Gate(GateForm form, Tensor gateUp, Tensor hidden)
    {
        var input = At(gateUp);
        var output = At(hidden);
        var (width, ld, inputLd) = ((int)gateUp.size(1) / 2, hidden.stride(0), gateUp.stride(0));
        EachRow(gateUp.size(0), row =>
        {
            var g = input + (row * inputLd);
            var u = g + width;
            var y = output + (row * ld);
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var gate = Vector.Load(g + i);
                Vector.Store(gate * Opening(form, gate).Value * Vector.Load(u + i), y + i);
            }
        });
    }

    public override void GateBackward(GateForm form, Tensor grad, Tensor gateUp, Tensor hidden)
    {
        var gradient = At(grad);
        var inout = At(gateUp);
        var product = At(hidden);
        var (width, ld, inoutLd) = ((int)gateUp.size(1) / 2, grad.stride(0), gateUp.stride(0));
        EachRow(gateUp.size(0), row =>
        {
            var d = gradient + (row * ld);
            var y = product + (row * width);
            var g = inout + (row * inoutLd);
            var u = g + width;
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var (gate, up, down) = (Vector.Load(g + i), Vector.Load(u + i), Vector.Load(d + i));
                var (s, slope) = Opening(form, gate);
                Vector.Store(gate * s * up, y + i);
                Vector.Store(down * gate * s, u + i);
                Vector.Store(down * up * slope, g + i);
            }
        });
    }

    public override void Activate(GateForm form, Tensor x, Tensor hidden)
    {
        var input = At(x);
        var output = At(hidden);
        var (width, ld, inputLd) = ((int)x.size(1), hidden.stride(0), x.stride(0));
        EachRow(x.size(0), row =>
        {
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var value = Vector.Load(input + (row * inputLd) + i);
                Vector.Store(value * Opening(form, value).Value, output + (row * ld) + i);
            }
        });
    }

    public override void ActivateBackward(GateForm form, Tensor grad, Tensor x, Tensor hidden)
    {
        var gradient = At(grad);
        var inout = At(x);
        var output = At(hidden);
        var (width, ld, inoutLd) = ((int)x.size(1), grad.stride(0), x.stride(0));
        EachRow(x.size(0), row =>
        {
            for (var i = 0; i < width; i += Vector<float>.Count)
            {
                var value = Vector.Load(inout + (row * inoutLd) + i);
                var (s, slope) = Opening(form, value);
                Vector.Store(value * s, output + (row * width) + i);
                Vector.Store(Vector.Load(gradient + (row * ld) + i) * slope, inout + (row * inoutLd) + i);
            }
        });
    }

    /// <summary>s(x) of an activation x · s(x), and the derivative of that activation.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector<float> Value, Vector<float> Slope) Opening(GateForm form, Vector<float> x)
    {
        if (form is GateForm.Relu)
        {
            var above = Vector.ConditionalSelect(Vector.GreaterThan(x, Vector<float>.Zero), Vector<float>.One, Vector<float>.Zero);
            return (above, above);
        }

        if (form is GateForm.ExactGelu)
        {
            var (below, density) = Normal(x);
            return (below, below + (x * density));
        }

        var (inner, slope) = (x, x); // what s is the sigmoid of, and x times its derivative
        if (form is GateForm.Gelu)
        {
            var (linear, cubic) = (new Vector<float>(1.5957691216f), new Vector<float>(0.0713548163f) * x * x);
            (inner, slope) = (x * (linear + cubic), x * (linear + cubic + cubic + cubic));
        }

        var s = Vector<float>.One / (Vector<float>.One + Exp(-inner));
        return (s, s * (Vector<float>.One + (slope * (Vector<float>.One - s))));
    }

    /// <summary>
    /// The normal distribution below x, within 1e-7 by Abramowitz and Stegun's 7.1.26, and its density at x.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector<float> Below, Vector<float> Density) Normal(Vector<float> x)
    {
        var bell = Exp(x * x * new Vector<float>(-0.5f));
        var t = Vector<float>.One / (Vector<float>.One + (Vector.Abs(x) * new Vector<float>(0.3275911f * 0.70710678f)));
        var p = new Vector<float>(1.061405429f);
        p = (p * t) - new Vector<float>(1.453152027f);
        p = (p * t) + new Vector<float>(1.421413741f);
        p = (p * t) - new Vector<float>(0.284496736f);
        p = (p * t) + new Vector<float>(0.254829592f);
        var tail = p * t * bell * new Vector<float>(0.5f); // beyond |x|
        return (Vector.ConditionalSelect(Vector.GreaterThan(x, Vector<float>.Zero), Vector<float>.One - tail, tail), bell * new Vector<float>(0.39894228f));
    }

    public override void CrossEntropy(Tensor logits, Tensor targets, Tensor loss, Tensor correct, double scale, ScoreForm form) =>
        _plain.CrossEntropy(logits, targets, loss, correct, scale, form);

    public override void CappedSoftmax(Tensor scores, CappedRows rows) => _plain.CappedSoftmax(scores, rows);

    public override void CappedSoftmaxBackward(Tensor scores, Tensor grad, CappedRows rows) => _plain.CappedSoftmaxBackward(scores, grad, rows);

    /// <summary>libtorch's flash attention for CPUs, a sequence at a time; it wants as many key heads as query heads.</summary>
    public override AttentionState Attention(Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope)
    {
        if (scope.SoftCap is not null)
        {
            return CappedAttention.Forward(this, q, k, v, borders, scope);
        }

        if (scope.For(borders).Window is not null)
        {
            return _plain.Attention(q, k, v, borders, scope);
        }

        using var temporaries = NewDisposeScope();
        var output = empty([q.size(0), q.size(1), q.size(2)]);
        var logSumExp = empty([q.size(0), q.size(1)]);
        foreach (var (start, length) in Sequences(borders))
        {
            using var inner = NewDisposeScope();
            var (y, lse) = Aten.CpuFlashAttention(Heads(q, start, length, 1), Heads(k, start, length, Repeats(q, k)), Heads(v, start, length, Repeats(q, k)), scope.Scale);
            output.narrow(0, start, length).copy_(y.squeeze(0).transpose(0, 1));
            logSumExp.narrow(0, start, length).copy_(lse.view(q.size(1), length).t());
        }

        return new AttentionState(output.MoveToOuterDisposeScope(), logSumExp.MoveToOuterDisposeScope(), null, null);
    }

    public override (Tensor Dq, Tensor Dk, Tensor Dv) AttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, PackedBorders borders, AttentionScope scope)
    {
        if (scope.SoftCap is not null)
        {
            return CappedAttention.Backward(this, grad, q, k, v, borders, scope);
        }

        if (scope.For(borders).Window is not null)
        {
            return _plain.AttentionBackward(grad, q, k, v, state, borders, scope);
        }

        using var temporaries = NewDisposeScope();
        var (dq, dk, dv) = (empty(q.shape), empty(k.shape), empty(v.shape));
        var repeats = Repeats(q, k);
        foreach (var (start, length) in Sequences(borders))
        {
            using var inner = NewDisposeScope();
            var (a, b, c) = Aten.CpuFlashAttentionBackward(
                Heads(grad, start, length, 1), Heads(q, start, length, 1), Heads(k, start, length, repeats), Heads(v, start, length, repeats),
                Heads(state.Output, start, length, 1), state.LogSumExp!.narrow(0, start, length).t().unsqueeze(0).contiguous(), scope.Scale);
            dq.narrow(0, start, length).copy_(a.squeeze(0).transpose(0, 1));
            dk.narrow(0, start, length).copy_(Grouped(b, k.size(1), repeats));
            dv.narrow(0, start, length).copy_(Grouped(c, k.size(1), repeats));
        }

        return (dq.MoveToOuterDisposeScope(), dk.MoveToOuterDisposeScope(), dv.MoveToOuterDisposeScope());
    }

    public override Tensor GroupedProduct(Tensor x, Tensor matrices, bool turned, Tensor ends) => _plain.GroupedProduct(x, matrices, turned, ends);

    public override void Nf4Decode(Nf4Matrix matrix, Tensor target) => _plain.Nf4Decode(matrix, target);

    public override void QuantizeRows(Tensor x, Tensor? columnScale, Tensor codes, Tensor scale) => _plain.QuantizeRows(x, columnScale, codes, scale);

    public override void TransposeCodes(Tensor codes, Tensor target) => _plain.TransposeCodes(codes, target);

    public override void ScaledProduct(Tensor x, Tensor scaleX, Tensor w, Tensor scaleW, Tensor target) =>
        _plain.ScaledProduct(x, scaleX, w, scaleW, target);

    public override ILoraCollector CreateCollector(IReadOnlyList<CollectedBlock> blocks) => _plain.CreateCollector(blocks);

    public override ILoraPacker CreatePacker(IReadOnlyList<PackedBlock> blocks) => _plain.CreatePacker(blocks);

    private static bool TurnsWholeVectors(HeadLayout heads) => !heads.SideBySide && Suits(heads.Turning / 2);

    /// <summary>Whether the rows of a model suit: whole vectors of eight.</summary>
    public static bool Suits(int width) => width % Vector<float>.Count == 0;

    private static IEnumerable<(int Start, int Length)> Sequences(PackedBorders borders) =>
        borders.Starts.Zip(borders.Starts.Skip(1), (start, end) => (start, end - start));

    private static long Repeats(Tensor q, Tensor k) => q.size(1) / k.size(1);

    /// <summary>[1, H, T, D] of one sequence, each head as often as wanted.</summary>
    private static Tensor Heads(Tensor x, int start, int length, long repeats)
    {
        var heads = x.narrow(0, start, length).transpose(0, 1); // [G, T, D]
        return (repeats == 1 ? heads : heads.unsqueeze(1).expand(heads.size(0), repeats, length, heads.size(2)).reshape(-1, length, heads.size(2))).unsqueeze(0);
    }

    /// <summary>[T, G, D]: the gradients of a head's repetitions together.</summary>
    private static Tensor Grouped(Tensor gradient, long groups, long repeats)
    {
        var heads = gradient.squeeze(0); // [H, T, D]
        return (repeats == 1 ? heads : heads.view(groups, repeats, heads.size(1), heads.size(2)).sum(1)).transpose(0, 1);
    }

    private void EachRow(long rows, Action<long> body)
    {
        const int Block = 64; // rows to a piece of work: some 50 KB, a worker's share of its cache
        var blocks = (rows + Block - 1) / Block;
        Parallel.For(0, blocks, _threads, block =>
        {
            for (var row = block * Block; row < Math.Min(rows, (block + 1) * Block); row++)
            {
                body(row);
            }
        });
    }

    private static float* At(Tensor? tensor) => tensor is null ? null : (float*)Aten.DataPointer(tensor);

    private static void Sum(float* a, float* b, float* y, int width)
    {
        for (var i = 0; i < width; i += Vector<float>.Count)
        {
            Vector.Store(Vector.Load(a + i) + Vector.Load(b + i), y + i);
        }
    }

    private static void Copy(float* from, float* to, int count) => new ReadOnlySpan<float>(from, count).CopyTo(new Span<float>(to, count));

    private static float Total(float* a, int width)
    {
        var sum = Vector<float>.Zero;
        for (var i = 0; i < width; i += Vector<float>.Count)
        {
            sum += Vector.Load(a + i);
        }

        return Vector.Sum(sum);
    }

    /// <summary>The squares of what is around <paramref name="mean"/>, added up.</summary>
    private static float Squares(float* a, float mean, int width)
    {
        var (sum, center) = (Vector<float>.Zero, new Vector<float>(mean));
        for (var i = 0; i < width; i += Vector<float>.Count)
        {
            var value = Vector.Load(a + i) - center;
            sum += value * value;
        }

        return Vector.Sum(sum);
    }

    /// <summary>
    /// e^x within two units in the last place, in float32 all the way (the framework's goes through float64, at five times the
    /// cost): x = n ln 2 + r, a polynomial in r (Cephes' expf), 2^n through the exponent's bits.
    /// </summary>
    private static Vector<float> Exp(Vector<float> x)
    {
        x = Vector.Min(Vector.Max(x, new Vector<float>(-87.3f)), new Vector<float>(88.3f));
        var n = Vector.Floor((x * new Vector<float>(1.44269504f)) + new Vector<float>(0.5f));
        var r = x - (n * new Vector<float>(0.693359375f)) - (n * new Vector<float>(-2.12194440e-4f));
        var p = new Vector<float>(1.9875691500e-4f);
        p = (p * r) + new Vector<float>(1.3981999507e-3f);
        p = (p * r) + new Vector<float>(8.3334519073e-3f);
        p = (p * r) + new Vector<float>(4.1665795894e-2f);
        p = (p * r) + new Vector<float>(1.6666665459e-1f);
        p = (p * r) + new Vector<float>(5.0000001201e-1f);
        var power = Vector.ShiftLeft(Vector.ConvertToInt32(n) + new Vector<int>(127), 23);
        return ((p * r * r) + r + Vector<float>.One) * Vector.AsVectorSingle(power);
    }

    /// <summary>Turns one head from x to y, which may be the same.</summary>
    private static void Turn(float* x, float* y, float* cos, float* sin, int half, float sign)
    {
        var direction = new Vector<float>(sign);
        for (var i = 0; i < half; i += Vector<float>.Count)
        {
            var (a, b) = (Vector.Load(x + i), Vector.Load(x + half + i));
            var (c, s) = (Vector.Load(cos + i), Vector.Load(sin + i) * direction);
            Vector.Store((a * c) - (b * s), y + i);
            Vector.Store((b * c) + (a * s), y + half + i);
        }
    }
}
