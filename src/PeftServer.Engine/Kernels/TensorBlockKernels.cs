using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Kernels;

/// <summary>The kernels in plain tensor code, on any device and in any type: the measure of <see cref="CudaBlockKernels"/>.</summary>
internal sealed class TensorBlockKernels : BlockKernels
{
    private static readonly long[] Last = [-1];

    public override void AddNorm(Tensor x, Tensor? delta, NormWeights norm, Tensor? sum, Tensor normed, Tensor stats)
    {
        using var scope = NewDisposeScope();
        using var little = norm.Eps.ToScalar();
        var total = delta is null ? x : x.Plus(delta);
        sum?.copy_(total);
        if (norm.Form is NormForm.None)
        {
            normed.copy_(total);
            return;
        }

        var wide = total.to(ScalarType.Float32);
        if (norm.Form is NormForm.Layer)
        {
            stats.select(0, 1).copy_(wide.mean(Last));
            wide = wide.Minus(stats.select(0, 1).unsqueeze(1));
        }

        var rstd = stats.select(0, 0);
        rstd.copy_(wide.mul(wide).mean(Last).add_(little).rsqrt_());
        normed.copy_(Weighted(wide.mul(rstd.unsqueeze(1)), norm, x.dtype));
    }

    public override void NormBackward(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor? residual, Tensor gradX)
    {
        using var scope = NewDisposeScope();
        var g = grad.to(ScalarType.Float32);
        if (norm.Form is not NormForm.None)
        {
            var (wide, rstd) = (x.to(ScalarType.Float32), stats.select(0, 0).unsqueeze(1));
            g = g.mul(norm.Factor!);
            var h = (norm.Form is NormForm.Layer ? wide.Minus(stats.select(0, 1).unsqueeze(1)) : wide).mul(rstd);
            var mean = h.mul(g.mul(h).mean(Last, keepdim: true));
            g = g.Minus(norm.Form is NormForm.Layer ? mean.Plus(g.mean(Last, keepdim: true)) : mean).mul(rstd);
        }

        gradX.copy_(residual is null ? g : g.Plus(residual.to(ScalarType.Float32)));
    }

    /// <summary>Normalized rows in float32, weighted as models do it, in their type.</summary>
    private static Tensor Weighted(Tensor normalized, NormWeights norm, ScalarType dtype) => norm.Form switch
    {
        NormForm.Rms => normalized.to(dtype).mul(norm.Weight!),
        NormForm.OffsetRms => normalized.mul(norm.Factor!),
        _ => norm.Bias is { } bias ? normalized.mul(norm.Weight!).Plus(bias) : normalized.mul(norm.Weight!),
    };

    public override void AddBias(Tensor rows, Tensor bias) => rows.Add(bias);

    public override void HeadNorm(Tensor qkv, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        using var little = query.Eps.ToScalar();
        var turning = Turning(qkv, heads); // [n, H + G, D]
        var wide = turning.to(ScalarType.Float32);
        rstd.copy_(wide.mul(wide).mean(Last).add_(little).rsqrt_());
        var normalized = wide.mul(rstd.unsqueeze(-1));
        turning.copy_((query.Form is NormForm.Rms ? normalized.to(qkv.dtype) : normalized).mul(Factors(query, key, heads)));
    }

    public override void HeadNormBackward(Tensor dqkv, Tensor qk, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var gradient = Turning(dqkv, heads); // [n, H + G, D]
        var g = gradient.to(ScalarType.Float32).mul(Factors(query, key, heads).to(ScalarType.Float32));
        var h = qk.view(gradient.shape).to(ScalarType.Float32).mul(rstd.unsqueeze(-1));
        gradient.copy_(g.Minus(h.mul(g.mul(h).mean(Last, keepdim: true))).mul(rstd.unsqueeze(-1)));
    }

    public override void Rope(Tensor qkv, Tensor cos, Tensor sin, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var (q, k, _) = heads.Split(qkv);
        q.copy_(Turn(q, cos, sin, heads));
        k.copy_(Turn(k, cos, sin, heads));
    }

    public override void RopeBackward(Tensor dq, Tensor dk, Tensor dv, Tensor cos, Tensor sin, Tensor dqkv, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var (q, k, v) = heads.Split(dqkv);
        q.copy_(Turn(dq, cos, sin.neg(), heads));
        k.copy_(Turn(dk, cos, sin.neg(), heads));
        v.copy_(dv);
    }

    private static Tensor Turn(Tensor x, Tensor cos, Tensor sin, HeadLayout heads)
    {
        var angle = (cos.unsqueeze(1).to(x.dtype), sin.unsqueeze(1).to(x.dtype));
        return heads.SideBySide ? RotaryEmbedding.RotateInterleaved(x, angle) : RotaryEmbedding.Rotate(x, angle);
    }

    public override void Gate(GateForm form, Tensor gateUp, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        var halves = gateUp.chunk(2, -1);
        hidden.copy_(Activated(form, halves[0]).mul(halves[1]));
    }

    public override void GateBackward(GateForm form, Tensor grad, Tensor gateUp, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        Gate(form, gateUp, hidden);
        var halves = gateUp.chunk(2, -1);
        var (gate, up, d) = (halves[0].to(ScalarType.Float32), halves[1].to(ScalarType.Float32), grad.to(ScalarType.Float32));
        var (s, slope) = Opening(form, gate);
        var dGate = d.mul(up).mul(slope);
        halves[1].copy_(d.mul(gate).mul(s));
        halves[0].copy_(dGate);
    }

    public override void Activate(GateForm form, Tensor x, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        hidden.copy_(Activated(form, x));
    }

    public override void ActivateBackward(GateForm form, Tensor grad, Tensor x, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        Activate(form, x, hidden);
        x.copy_(grad.to(ScalarType.Float32).mul(Opening(form, x.to(ScalarType.Float32)).Slope));
    }

    private static Tensor Activated(GateForm form, Tensor x) => form switch
    {
        GateForm.Silu => Activation.Silu(x),
        GateForm.Gelu => Activation.TanhGelu(x),
        GateForm.ExactGelu => Activation.Gelu(x),
        _ => Activation.Relu(x),
    };

    /// <summary>s(x) of an activation x · s(x), and the derivative of that activation.</summary>
    private static (Tensor Value, Tensor Slope) Opening(GateForm form, Tensor x)
    {
        if (form is GateForm.Relu)
        {
            var above = x.gt(TensorArithmetic.Zero).to(ScalarType.Float32);
            return (above, above);
        }

        if (form is GateForm.ExactGelu)
        {
            var below = x.Times(Math.Sqrt(0.5)).erf().Plus(1).Times(0.5); // the normal distribution's
            return (below, below.Plus(x.mul(x.mul(x).Times(-0.5).exp()).Times(1 / Math.Sqrt(2 * Math.PI))));
        }

        var (inner, slope) = (x, x); // what s is the sigmoid of, and x times its derivative
        if (form is GateForm.Gelu)
        {
            var (linear, cubic) = (2 * Math.Sqrt(2 / Math.PI), 2 * Math.Sqrt(2 / Math.PI) * 0.044715);
            var cube = x.mul(x).mul(x);
            (inner, slope) = (x.Times(linear).Plus(cube.Times(cubic)), x.Times(linear).Plus(cube.Times(3 * cubic)));
        }

        var s = inner.sigmoid();
        return (s, s.mul(slope.mul(s.Complement()).Plus(1)));
    }

    public override void CrossEntropy(Tensor logits, Tensor targets, Tensor loss, Tensor correct, double scale, ScoreForm form)
    {
        using var scope = NewDisposeScope();
        var wide = logits.to(ScalarType.Float32).Times(form.Factor);
        Tensor? slope = null; // of the cap
        if (form.Cap is { } cap)
        {
            var bent = wide.Times(1 / cap).tanh_();
            slope = bent.mul(bent).Complement();
            wide = bent.Scale(cap);
        }

        var logP = wide.log_softmax(-1);
        var picked = targets.unsqueeze(1);
        loss.add_(logP.gather(1, picked).sum(), TensorArithmetic.MinusOne);
        correct.add_(wide.argmax(-1).eq(targets).sum().to(ScalarType.Float32), TensorArithmetic.One);
        var gradient = logP.exp_();
        gradient.scatter_add_(1, picked, full_like(picked.to(ScalarType.Float32), TensorArithmetic.MinusOne));
        gradient.Scale(scale * form.Factor);
        logits.copy_(slope is null ? gradient : gradient.mul_(slope));
    }

    public override void CappedSoftmax(Tensor scores, CappedRows rows)
    {
        using var scope = NewDisposeScope();
        scores.copy_(Softmax(scores, rows).Weights);
    }

    public override void CappedSoftmaxBackward(Tensor scores, Tensor grad, CappedRows rows)
    {
        using var scope = NewDisposeScope();
        var (weights, bent) = Softmax(scores, rows);
        var d = grad.to(ScalarType.Float32);
        var slopes = d.Minus(d.mul(weights).sum(-1, keepdim: true)).mul(weights);
        grad.copy_(slopes.mul(bent.mul(bent).Complement()).Scale(rows.Scale));
        scores.copy_(weights);
    }

    /// <summary>In float32: the softmax, and the tanh under it.</summary>
    private static (Tensor Weights, Tensor Bent) Softmax(Tensor scores, CappedRows rows)
    {
        var (count, keys) = (scores.size(1), scores.size(2));
        var query = arange(count, dtype: ScalarType.Int64, device: scores.device).remainder(tensor((long)rows.Queries, device: scores.device)).Plus(rows.First).unsqueeze(1);
        var distance = query.Minus(arange(keys, dtype: ScalarType.Int64, device: scores.device)); // [rows, S]
        var hidden = distance.lt(TensorArithmetic.Zero);
        if (rows.Window is { } window)
        {
            using var limit = ((long)window).ToScalar();
            hidden = hidden.logical_or(distance.ge(limit));
        }

        var bent = scores.to(ScalarType.Float32).Times(rows.Scale / rows.Cap).tanh_();
        return (bent.Times(rows.Cap).masked_fill_(hidden, TensorArithmetic.NegativeInfinity).softmax(-1), bent);
    }

    public override AttentionState Attention(Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope)
    {
        using var frozen = no_grad();
        return new AttentionState(Attend(q, k, v, borders, scope), null, null, null);
    }

    public override (Tensor Dq, Tensor Dk, Tensor Dv) AttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, PackedBorders borders, AttentionScope scope)
    {
        using var inner = NewDisposeScope();
        using var recording = enable_grad();
        var (a, b, c) = (q.detach().requires_grad_(true), k.detach().requires_grad_(true), v.detach().requires_grad_(true));
        Attend(a, b, c, borders, scope).backward([grad]);
        return (a.grad!.MoveToOuterDisposeScope(), b.grad!.MoveToOuterDisposeScope(), c.grad!.MoveToOuterDisposeScope());
    }

    public override Tensor GroupedProduct(Tensor x, Tensor matrices, bool turned, Tensor ends)
    {
        using var scope = NewDisposeScope();
        var y = empty([x.size(0), matrices.size(turned ? 1 : 2)], dtype: x.dtype, device: x.device);
        var start = 0;
        foreach (var (group, end) in ends.cpu().data<int>().ToArray().Index()) // a device sync
        {
            using var inner = NewDisposeScope();
            if (end > start)
            {
                var matrix = matrices.select(0, group);
                Aten.Product(x.narrow(0, start, end - start), turned ? matrix.t() : matrix, y.narrow(0, start, end - start));
            }

            start = end;
        }

        return y.MoveToOuterDisposeScope();
    }

    public override void Nf4Decode(Nf4Matrix matrix, Tensor target)
    {
        using var values = matrix.Decode();
        target.copy_(values);
    }

    public override void QuantizeRows(Tensor x, Tensor? columnScale, Tensor codes, Tensor scale)
    {
        using var scope = NewDisposeScope();
        var wide = x.to(ScalarType.Float32);
        var (newCodes, newScale) = Fp8Matrix.Rowwise(columnScale is null ? wide : wide.mul(columnScale));
        codes.copy_(newCodes);
        scale.copy_(newScale);
    }

    public override void TransposeCodes(Tensor codes, Tensor target)
    {
        using var turned = codes.t();
        target.copy_(turned);
    }

    public override void ScaledProduct(Tensor x, Tensor scaleX, Tensor w, Tensor scaleW, Tensor target)
    {
        using var scope = NewDisposeScope();
        var wide = F.linear(x.to(ScalarType.Float32).mul_(scaleX.unsqueeze(1)), w.to(ScalarType.Float32).mul_(scaleW.unsqueeze(1)));
        target.copy_(wide);
    }

    public override ILoraCollector CreateCollector(IReadOnlyList<CollectedBlock> blocks) => new Collector(blocks);

    public override ILoraPacker CreatePacker(IReadOnlyList<PackedBlock> blocks) => new Packer(blocks);

    private static Tensor Attend(Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope) =>
        new PackedAttention(borders.Starts).Attend(0, q, k, v, new AttentionOptions(scope.Scale, scope.Window, SoftCap: scope.SoftCap));

    /// <summary>What each head is multiplied by: [H + G, D].</summary>
    private static Tensor Factors(NormWeights query, NormWeights key, HeadLayout heads) =>
        cat([query.Factor!.expand(heads.QueryHeads, heads.HeadDim), key.Factor!.expand(heads.KeyValueHeads, heads.HeadDim)], 0);

    private static Tensor Turning(Tensor qkv, HeadLayout heads) =>
        qkv.narrow(1, 0, heads.QueryWidth + heads.KeyValueWidth).view(-1, heads.QueryHeads + heads.KeyValueHeads, heads.HeadDim);

    private sealed class Collector(IReadOnlyList<CollectedBlock> blocks) : ILoraCollector
    {
        public void Add(Tensor dA, Tensor dB)
        {
            using var scope = NewDisposeScope();
            foreach (var block in blocks)
            {
                var source = (block.FromB ? dB : dA).narrow(0, block.Row, block.Target.size(0)).narrow(1, block.Column, block.Target.size(1));
                block.Target.Add(source, block.Scale);
            }
        }

        public void Dispose()
        {
            foreach (var block in blocks)
            {
                block.Target.Dispose();
            }
        }
    }

    private sealed class Packer(IReadOnlyList<PackedBlock> blocks) : ILoraPacker
    {
        public void Pack()
        {
            using var scope = NewDisposeScope();
            foreach (var block in blocks)
            {
                using var scale = block.Scale.ToScalar();
                block.Target.copy_(block.Source.mul(scale));
            }
        }

        public void Dispose()
        {
        }
    }
}
