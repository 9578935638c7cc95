using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Supertuning;

/// <summary>ΔW at a projection: trained values at the places of the largest frozen ones, and a LoRA where there is a rank.</summary>
internal sealed class SupertuningProjection : WeightDelta
{
    private readonly SupertuningConfig _config;
    private readonly Weight supertuning_values;
    private readonly Weight supertuning_indices;
    private readonly Weight? _a; // (r, in)
    private readonly Weight? _b; // (out, r)
    private readonly Scalar? _scale;

    public SupertuningProjection(SupertuningConfig config, Projection site)
    {
        _config = config;
        var all = (long)site.InFeatures * site.OutFeatures;
        var count = (long)(all * (1 - config.Sparsity));
        if (count < 1)
        {
            throw new AdapterException("sparsity", $"{config.Sparsity} leaves none of the {all} values of {site.Path} to train.");
        }

        supertuning_values = new Weight(count) { Trainable = true };
        supertuning_indices = new Weight(count) { IsBuffer = true };
        if (config.R is { } r)
        {
            _scale = ((config.LoraAlpha ?? throw new AdapterException("lora_alpha", "It is needed with r.")) / r).ToScalar();
            _a = new Weight(r, site.InFeatures) { Trainable = true };
            _b = new Weight(site.OutFeatures, r) { Trainable = true };
        }
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            yield return (nameof(supertuning_values), supertuning_values);
            if (_config.SavePrecomputedIndices)
            {
                yield return (nameof(supertuning_indices), supertuning_indices);
            }

            if (_a is not null)
            {
                yield return ("supertuning_lora_A.weight", _a);
                yield return ("supertuning_lora_B.weight", _b!);
            }
        }
    }

    public override IEnumerable<Weight> Derived => _config.SavePrecomputedIndices ? [] : [supertuning_indices];

    protected override double DropoutShare => _config.LoraDropout;

    // Only the LoRA's input is dropped: the values act on all of x.
    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var y = F.linear(x, Sparse((Projection)call.Site).to(x.dtype)); // [n, out]
        if (_a is not null)
        {
            var low = F.linear(Dropout.Apply(x, DropoutShare, call.Batch.Dropout), _a.Value.to(x.dtype)); // [n, r]
            y = y.Plus(F.linear(low, _b!.Value.to(x.dtype)).mul(_scale!));
        }

        return y.MoveToOuterDisposeScope();
    }

    public override Tensor DeltaWeight(Projection site) => _a is null ? Sparse(site) : Sparse(site).Plus(_b!.Value.mm(_a.Value).mul(_scale!));

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        FindPlaces((Projection)site);
        supertuning_values.Normal(_config.InitWeights ? 0 : 1, generator, device);
        _a?.Kaiming(_a.Shape[1], generator, device);
        _b?.Kaiming(_b.Shape[1], generator, device);
        if (_config.InitWeights)
        {
            _b?.Zeros(device);
        }
    }

    public override void Prepare(Site site)
    {
        if (!_config.SavePrecomputedIndices)
        {
            FindPlaces((Projection)site);
        }
    }

    private void FindPlaces(Projection site) =>
        supertuning_indices.Set(site.DenseWeight().abs().flatten().topk((int)supertuning_indices.Shape[0], -1, _config.SelectTop).indexes.to(ScalarType.Int32));

    private Tensor Sparse(Projection site) => zeros((long)site.OutFeatures * site.InFeatures, device: supertuning_values.Value.device)
        .scatter(0, supertuning_indices.Value.to(ScalarType.Int64), supertuning_values.Value).view(site.OutFeatures, site.InFeatures);
}
