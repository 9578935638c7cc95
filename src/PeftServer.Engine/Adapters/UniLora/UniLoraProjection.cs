using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.UniLora;

/// <summary>y += BAx at a projection, A and B put together from the shared numbers.</summary>
internal sealed class UniLoraProjection : LinearDelta
{
    private readonly UniLoraConfig _config;
    private readonly SharedNumbers _numbers;
    private readonly Weight unilora_indices_A; // (r, in)
    private readonly Weight unilora_indices_B; // (out, r)
    private readonly Weight unilora_scales_A; // (r, in)
    private readonly Weight unilora_scales_B; // (out, r)

    private UniLoraProjection(UniLoraConfig config, SharedNumbers numbers, Projection site)
    {
        (_config, _numbers) = (config, numbers);
        unilora_indices_A = new Weight(config.R, site.InFeatures) { IsBuffer = true, ElementSize = sizeof(long) };
        unilora_indices_B = new Weight(site.OutFeatures, config.R) { IsBuffer = true, ElementSize = sizeof(long) };
        unilora_scales_A = new Weight(config.R, site.InFeatures) { IsBuffer = true };
        unilora_scales_B = new Weight(site.OutFeatures, config.R) { IsBuffer = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => _config.SaveIndices ? Map : [];

    public override IEnumerable<Weight> Derived => Map.Select(entry => entry.Weight);

    protected override double DropoutShare => _config.UniloraDropout;

    /// <summary>Where the numbers of A go, then those of B.</summary>
    internal IReadOnlyList<(Weight Indices, Weight Scales)> Places => [(unilora_indices_A, unilora_scales_A), (unilora_indices_B, unilora_scales_B)];

    private IEnumerable<(string Name, Weight Weight)> Map =>
    [
        (nameof(unilora_indices_A), unilora_indices_A), (nameof(unilora_indices_B), unilora_indices_B),
        (nameof(unilora_scales_A), unilora_scales_A), (nameof(unilora_scales_B), unilora_scales_B),
    ];

    public static MethodParts Create(UniLoraConfig config, IReadOnlyList<Site> sites)
    {
        var numbers = new SharedNumbers(config);
        var parts = sites.Select(site => new UniLoraProjection(config, numbers, TargetedConfig.AsProjection(site))).ToList();
        numbers.Parts = parts;
        return new(parts, numbers);
    }

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var a = _numbers.At(unilora_indices_A.Value).mul(unilora_scales_A.Value).to(x.dtype); // [r, in]
        var b = _numbers.At(unilora_indices_B.Value).mul(unilora_scales_B.Value).to(x.dtype); // [out, r]
        return F.linear(F.linear(x, a), b);
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}
