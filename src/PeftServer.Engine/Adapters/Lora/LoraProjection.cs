using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>y += s·B(A(dropout(x))) at a projection.</summary>
internal sealed class LoraProjection : AdditiveSiteAdapter
{
    private readonly Weight lora_A; // (r, in)
    private readonly Weight lora_B; // (out, r)
    private readonly Weight? lora_B_bias; // (out)
    private readonly LoraConfig _config;
    private readonly Scalar _scale;

    internal Tensor A => lora_A.Value;

    internal Tensor B => lora_B.Value;

    internal int Rank => (int)lora_A.Shape[0];

    internal double Scale { get; }

    internal bool HasBias => lora_B_bias is not null;

    public LoraProjection(LoraConfig config, Projection site, int r, double scale)
    {
        _config = config;
        Scale = scale;
        _scale = scale.ToScalar();
        lora_A = new Weight(r, site.InFeatures) { Trainable = true };
        lora_B = new Weight(site.OutFeatures, r) { Trainable = true };
        lora_B_bias = config.LoraBias ? new Weight(site.OutFeatures) { Trainable = true } : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            yield return ("lora_A.weight", lora_A);
            yield return ("lora_B.weight", lora_B);
            if (lora_B_bias is not null)
            {
                yield return ("lora_B.bias", lora_B_bias);
            }
        }
    }

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();

        // In the type of x: on a bfloat16 base the products are bfloat16, the weights behind them stay float32.
        x = Dropout.Apply(x, _config.LoraDropout, call.Batch.Dropout);
        var low = F.linear(x, lora_A.Value.to(x.dtype)).mul(_scale); // [n, r]
        var delta = F.linear(low, lora_B.Value.to(x.dtype)); // [n, out]
        if (lora_B_bias is not null)
        {
            delta = delta.Plus(lora_B_bias.Value.mul(_scale).to(x.dtype));
        }

        return delta.MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        lora_A.Set(LoraInitialization.A(_config.InitLoraWeights, lora_A.Shape, generator).to(device));
        lora_B.Set(LoraInitialization.B(_config.InitLoraWeights, lora_B.Shape, generator).to(device));
        lora_B_bias?.Set(zeros(lora_B_bias.Shape[0], device: device));
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        weight.to(ScalarType.Float32).Plus(lora_B.Value.mm(lora_A.Value).mul(_scale)); // [out, in]

    public override Tensor? MergeBias(Site site, Tensor? bias) => lora_B_bias is null || bias is null
        ? bias
        : bias.to(ScalarType.Float32).Plus(lora_B_bias.Value.mul(_scale));
}
