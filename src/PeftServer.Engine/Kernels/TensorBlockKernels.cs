using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Kernels;

/// <summary>The kernels in plain tensor code, on any device and in any type: the measure of <see cref="CudaBlockKernels"/>.</summary>
internal sealed class TensorBlockKernels : BlockKernels
{
    private static readonly long[] Last = [-1];

    public override void AddRmsNorm(Tensor x, Tensor? delta, Tensor weight, double eps, Tensor? sum, Tensor normed, Tensor rstd)
    {
        using var scope = NewDisposeScope();
        using var little = eps.ToScalar();
        var total = delta is null ? x : x.Plus(delta);
        sum?.copy_(total);
        var wide = total.to(ScalarType.Float32);
        rstd.copy_(wide.mul(wide).mean(Last).add_(little).rsqrt_());
        normed.copy_(wide.mul(rstd.unsqueeze(1)).to(x.dtype).mul(weight));
    }

    public override void RmsNormBackward(Tensor grad, Tensor x, Tensor weight, Tensor rstd, Tensor? residual, Tensor gradX)
    {
        using var scope = NewDisposeScope();
        var g = grad.to(ScalarType.Float32).mul(weight.to(ScalarType.Float32));
        var h = x.to(ScalarType.Float32).mul(rstd.unsqueeze(1));
        var result = g.Minus(h.mul(g.mul(h).mean(Last, keepdim: true))).mul(rstd.unsqueeze(1));
        gradX.copy_(residual is null ? result : result.Plus(residual.to(ScalarType.Float32)));
    }

    public override void AddBias(Tensor rows, Tensor bias) => rows.Add(bias);

    public override void HeadNorm(Tensor qkv, Tensor queryWeight, Tensor keyWeight, double eps, Tensor rstd, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        using var little = eps.ToScalar();
        var turning = Turning(qkv, heads); // [n, H + G, D]
        var wide = turning.to(ScalarType.Float32);
        rstd.copy_(wide.mul(wide).mean(Last).add_(little).rsqrt_());
        turning.copy_(wide.mul(rstd.unsqueeze(-1)).to(qkv.dtype).mul(Weights(queryWeight, keyWeight, heads)));
    }

    public override void HeadNormBackward(Tensor dqkv, Tensor qk, Tensor queryWeight, Tensor keyWeight, Tensor rstd, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var gradient = Turning(dqkv, heads); // [n, H + G, D]
        var g = gradient.to(ScalarType.Float32).mul(Weights(queryWeight, keyWeight, heads).to(ScalarType.Float32));
        var h = qk.view(gradient.shape).to(ScalarType.Float32).mul(rstd.unsqueeze(-1));
        gradient.copy_(g.Minus(h.mul(g.mul(h).mean(Last, keepdim: true))).mul(rstd.unsqueeze(-1)));
    }

    public override void Rope(Tensor qkv, Tensor cos, Tensor sin, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var turning = Turning(qkv, heads);
        turning.copy_(RotaryEmbedding.Rotate(turning, (cos.unsqueeze(1).to(qkv.dtype), sin.unsqueeze(1).to(qkv.dtype))));
    }

    public override void RopeBackward(Tensor dq, Tensor dk, Tensor dv, Tensor cos, Tensor sin, Tensor dqkv, HeadLayout heads)
    {
        using var scope = NewDisposeScope();
        var turned = cat([dq, dk], 1);
        Turning(dqkv, heads).copy_(RotaryEmbedding.Rotate(turned, (cos.unsqueeze(1).to(dq.dtype), sin.neg().unsqueeze(1).to(dq.dtype))));
        dqkv.narrow(1, heads.QueryWidth + heads.KeyValueWidth, heads.KeyValueWidth).copy_(dv.reshape(-1, heads.KeyValueWidth));
    }

    public override void SwiGlu(Tensor gateUp, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        var halves = gateUp.chunk(2, -1);
        hidden.copy_(F.silu(halves[0]).mul(halves[1]));
    }

    public override void SwiGluBackward(Tensor grad, Tensor gateUp, Tensor hidden)
    {
        using var scope = NewDisposeScope();
        SwiGlu(gateUp, hidden);
        var halves = gateUp.chunk(2, -1);
        var (gate, up, d) = (halves[0].to(ScalarType.Float32), halves[1].to(ScalarType.Float32), grad.to(ScalarType.Float32));
        var s = gate.sigmoid();
        var dGate = d.mul(up).mul(s).mul(gate.mul(s.neg().add_(TensorArithmetic.One)).add_(TensorArithmetic.One));
        halves[1].copy_(d.mul(gate).mul(s));
        halves[0].copy_(dGate);
    }

    public override void CrossEntropy(Tensor logits, Tensor targets, Tensor loss, Tensor correct, double scale)
    {
        using var scope = NewDisposeScope();
        using var factor = scale.ToScalar();
        var wide = logits.to(ScalarType.Float32);
        var logP = wide.log_softmax(-1);
        var picked = targets.unsqueeze(1);
        loss.add_(logP.gather(1, picked).sum(), TensorArithmetic.MinusOne);
        correct.add_(wide.argmax(-1).eq(targets).sum().to(ScalarType.Float32), TensorArithmetic.One);
        var gradient = logP.exp_();
        gradient.scatter_add_(1, picked, full_like(picked.to(ScalarType.Float32), TensorArithmetic.MinusOne));
        logits.copy_(gradient.mul_(factor));
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
        new PackedAttention(borders.Starts).Attend(0, q, k, v, new AttentionOptions(scope.Scale, scope.Window));

    /// <summary>The weight of each head: [H + G, D].</summary>
    private static Tensor Weights(Tensor query, Tensor key, HeadLayout heads) =>
        cat([query.expand(heads.QueryHeads, heads.HeadDim), key.expand(heads.KeyValueHeads, heads.HeadDim)], 0);

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
