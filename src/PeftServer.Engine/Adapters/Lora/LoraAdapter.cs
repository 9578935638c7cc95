using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoRA on the sites that its <see cref="LoraConfig"/> names.</summary>
public sealed class LoraAdapter : Adapter
{
    public LoraAdapter(LoraConfig config, PretrainedModel model)
        : base(config, model)
    {
        var resolved = config with
        {
            TargetModules = config.TargetModules ?? Adapters.TargetModules.DefaultFor(model),
            ModulesToSave = Adapters.TargetModules.WithHeads(config.ModulesToSave, config.TaskType),
        };
        Config = resolved;
        foreach (var site in Targets(resolved, model))
        {
            if (BaseLayerCopy.IsSavedAt(site))
            {
                Attach(site, new BaseLayerCopy(site));
            }

            Attach(site, Part(resolved, site));
        }

        foreach (var site in model.Sites().Where(site => resolved.ModulesToSave?.Any(name => Adapters.TargetModules.IsWithin(site.Path, name)) is true))
        {
            Attach(site, new TrainableCopy(site));
        }
    }

    private static IReadOnlyList<Site> Targets(LoraConfig config, PretrainedModel model) => Adapters.TargetModules.Select(
        model, config.TargetModules!, config.ExcludeModules, config.ModulesToSave, config.LayersToTransform?.Values, config.LayersPattern?.Values);

    private static SiteAdapter Part(LoraConfig config, Site site)
    {
        var r = Adapters.TargetModules.ByPattern(config.RankPattern, site.Path, config.R);
        var alpha = Adapters.TargetModules.ByPattern(config.AlphaPattern, site.Path, config.LoraAlpha);
        var scale = config.UseRslora ? alpha / Math.Sqrt(r) : alpha / r;
        return site switch
        {
            Projection projection => new LoraProjection(config, projection, r, scale),
            Embedding embedding => new LoraEmbedding(config, embedding, r, scale),
            _ => throw new AdapterException("target_modules", $"{site.Path} is neither a linear layer nor an embedding."),
        };
    }
}
