using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoRA on a parameter that is no layer's weight: W + s·BA for [out, in], and for each expert of [experts, out, in].</summary>
internal sealed class LoraParameter : AdditiveSiteAdapter
{
    private readonly LoraConfig _config;
    private readonly string _prefix;
    private readonly long _experts;
    private readonly Weight lora_A; // (experts·r, in): expert after expert
    private readonly Weight lora_B; // (out, r·experts): rank after rank
    private readonly KeptScalar _scale;

    /// <param name="config">The settings.</param>
    /// <param name="site">The parameter.</param>
    /// <param name="depth">How many parameters of the same module are wrapped around this one: the file nests them.</param>
    public LoraParameter(LoraConfig config, Parameter site, int depth)
    {
        if (site.Weight.Shape.Count is not (2 or 3))
        {
            throw new AdapterException("target_parameters", $"{site.Path} has {site.Weight.Shape.Count} dimensions; LoRA needs 2 or 3.");
        }

        (_config, _prefix) = (config, string.Concat(Enumerable.Repeat("base_layer.", depth)));
        var (r, scale) = config.RankAt(site.Path);
        var shape = site.Weight.Shape;
        _experts = shape.Count == 3 ? shape[0] : 1;
        _scale = new KeptScalar(scale);
        lora_A = new Weight(r * _experts, shape[^1]) { Trainable = true };
        lora_B = new Weight(shape[^2], r * _experts) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [($"{_prefix}lora_A.weight", lora_A), ($"{_prefix}lora_B.weight", lora_B)];

    public override bool SavesBaseLayer => false;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return Change().view(x.shape).to(x.dtype).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        var (a, b) = LoraInitialization.Drawn(_config.InitLoraWeights, lora_A.Shape, lora_B.Shape, generator);
        lora_A.Set(a.to(site.Weight.Value.device));
        lora_B.Set(b.to(site.Weight.Value.device));
    }

    public override Tensor Merge(Site site, Tensor weight) => weight.to(ScalarType.Float32).Plus(Change().view(weight.shape));

    /// <summary>s·BA of every expert: [experts, out, in].</summary>
    private Tensor Change()
    {
        var a = lora_A.Value.view(_experts, -1, lora_A.Shape[1]); // [experts, r, in]
        var b = lora_B.Value.view(lora_B.Shape[0], -1, _experts).permute(2, 0, 1); // [experts, out, r]
        return b.bmm(a).mul(_scale);
    }
}
