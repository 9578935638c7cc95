using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// The frozen weight of an adapted embedding or head, which PEFT saves beside the adapter (<c>base_layer.weight</c>), since a
/// resized vocabulary changes it. Where it is the base's own, it is only a view of that.
/// </summary>
internal sealed class BaseLayerCopy(Site site) : SiteAdapter
{
    private static readonly string[] EmbeddingLayerNames = ["embed_tokens", "lm_head"];

    private readonly Weight weight = new([.. site.Weight.Shape]);

    /// <summary>Whether PEFT saves the frozen weight of an adapted site: an embedding or a head, where the settings have one of their short names.</summary>
    public static bool IsSavedAt(Site site, ModuleSelector targets) =>
        EmbeddingLayerNames.Any(name => targets.Names?.Contains(name) ?? targets.Pattern!.Contains(name, StringComparison.Ordinal))
        && Array.Exists(EmbeddingLayerNames, name => ModuleSelector.EndsWithName(site.Path, name));

    public override IEnumerable<(string Name, Weight Weight)> State => [("base_layer.weight", weight)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var frozen = call.Site;
        return frozen.Compute(x, weight.Value.to(frozen.Weight.Value.dtype), frozen.Bias?.Value);
    }

    public override void Initialize(Site site, Generator generator) => weight.Set(site.Weight.Value.alias());

    /// <summary>Drops a loaded copy that says what the base says.</summary>
    public void Share()
    {
        using var scope = NewDisposeScope();
        if (weight.Value.to(site.Weight.Value.dtype).equal(site.Weight.Value).all().item<bool>())
        {
            weight.Set(site.Weight.Value.alias());
        }
    }

    public override Tensor Merge(Site site, Tensor weight) => this.weight.Value;
}
