using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>The adapter of every method whose settings are a <see cref="TargetedConfig"/>.</summary>
internal class TargetedAdapter : Adapter
{
    private readonly SharedWeights? _shared;

    public TargetedAdapter(TargetedConfig config, PretrainedModel model)
        : base(config, model)
    {
        var sites = config.TargetModules is null or { Names.Count: 0 } ? [] : TargetModules.Select(
            model, config.TargetModules, (config as IExcludesModules)?.ExcludeModules, config.ModulesToSave,
            (config as ISelectsLayers)?.LayersToTransform?.Values, (config as ISelectsLayers)?.LayersPattern?.Values);
        var bias = (config as ITrainsBias)?.Bias ?? "none";
        foreach (var site in model.Sites().Where(site => site.Bias is not null && !TargetModules.IsSaved(site, config.ModulesToSave) && (bias == "all" || (bias != "none" && sites.Contains(site)))))
        {
            Attach(site, new TrainableBias(site, sites.Contains(site)));
        }

        var method = config.CreateParts(sites, model);
        _shared = method.Shared;
        foreach (var (key, weight) in Shared)
        {
            weight.Path = key;
        }

        foreach (var (site, part) in sites.Zip(method.Parts))
        {
            if (BaseLayerCopy.IsSavedAt(site, config.TargetModules!) && part.SavesBaseLayer)
            {
                Attach(site, new BaseLayerCopy(site));
            }

            Attach(site, part);
        }

        AttachSavedModules(config.ModulesToSave, tiesHeads: config is LoraConfig { EnsureWeightTying: true });
    }

    protected override IEnumerable<(string Key, Weight Weight)> Shared => _shared?.State ?? [];

    protected override IEnumerable<Weight> SharedDerived => _shared?.Derived ?? [];

    protected override void InitializeShared(Generator generator) => _shared?.Initialize(Model, generator);

    protected override void PrepareShared() => _shared?.Prepare(Model);
}
