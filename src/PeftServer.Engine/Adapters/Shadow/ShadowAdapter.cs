using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Shadow;

/// <summary>The network beside a base, and what stands between the base's blocks.</summary>
internal sealed class ShadowAdapter : Adapter
{
    private readonly ShadowConfig _config;
    private readonly ShadowBackbone _backbone;
    private readonly List<(string Path, ShadowBlock Block)> _blocks;
    private readonly List<HiddenSite> _sites = [];
    private readonly int _first;

    private ShadowAdapter(ShadowConfig config, CausalLanguageModel model, List<HiddenSite> boundaries)
        : base(config, model)
    {
        _config = config;
        var chosen = boundaries.Where(site => site.Layer >= 0 && Takes(config, site)).ToDictionary(site => site.Layer, _ => new ShadowBlock(config, model.HiddenSize));
        if (chosen.Count == 0 || chosen.Keys.Max() - chosen.Keys.Min() >= chosen.Count)
        {
            throw new AdapterException("target_modules", chosen.Count == 0
                ? $"No block of this model is meant. They are {string.Join(", ", boundaries.Where(site => site.Layer >= 0).Select(PathOf).Take(2))}, …"
                : "The blocks must follow one another: their state goes from one to the next.");
        }

        _first = chosen.Keys.Min();
        _blocks = [.. boundaries.Where(site => chosen.ContainsKey(site.Layer)).Select(site => (PathOf(site), chosen[site.Layer]))];
        _backbone = new ShadowBackbone(config, model);
        _backbone.Share(this);
        foreach (var (key, weight) in Shared)
        {
            weight.Path = key;
        }

        foreach (var site in boundaries.Where(site => chosen.ContainsKey(site.Layer) || chosen.ContainsKey(site.Layer + 1)))
        {
            site.Attach(this, new ShadowBoundary(this, site.Layer, chosen.GetValueOrDefault(site.Layer), chosen.GetValueOrDefault(site.Layer + 1)));
            _sites.Add(site);
        }

        AttachSavedModules(config.ModulesToSave);
    }

    protected override IEnumerable<(string Key, Weight Weight)> Shared =>
        _blocks.SelectMany(entry => entry.Block.State.Select(state => ($"{Prefix}{entry.Path}.{state.Name}", state.Weight))).Concat(_backbone.State);

    /// <summary>Throws <see cref="AdapterException"/> for a model whose blocks cannot be had.</summary>
    public static ShadowAdapter Create(ShadowConfig config, PretrainedModel model)
    {
        if (model is not CausalLanguageModel causal || model.TokenEmbedding is not { Path: "model.embed_tokens" }
            || model.Modules().OfType<HiddenSite>().OrderBy(site => site.Layer).ToList() is not { } sites || sites.Count != causal.LayerCount + 1)
        {
            throw new AdapterException("peft_type", $"SHADOW is not supported on this {model.Config.ModelType}. It is on causal language models like Llama.");
        }

        var names = sites.Where(site => site.Layer >= 0).Select(PathOf).ToArray();
        return new ShadowAdapter(config with { TargetModules = config.TargetModules ?? ModuleSelector.Of(names) }, causal, sites);
    }

    /// <summary>s before the first block, [n, width]; made once a batch.</summary>
    public Tensor Start(ForwardBatch batch, AdapterRun run) => batch.Once((this, run.Start), () => _backbone.Begin(batch, run, this));

    /// <summary>s behind a layer. Without gradients it takes the place of the one before.</summary>
    public Tensor Advanced(ForwardBatch batch, AdapterRun run, int layer, ShadowBlock block, Tensor h)
    {
        if (is_grad_enabled())
        {
            var last = layer == _first ? Start(batch, run) : batch.Once((this, run.Start, layer - 1), () => throw new InvalidOperationException($"No state behind layer {layer - 1}."));
            return batch.Once((this, run.Start, layer), () => block.Advance(h, last));
        }

        using var scope = NewDisposeScope();
        var state = Start(batch, run);
        state.copy_(block.Advance(h, state));
        return state;
    }

    /// <summary>The shadow's own hidden states.</summary>
    public override (Tensor States, double Weight)? SideStates(ForwardBatch batch) =>
        _config.AuxiliaryLossWeight == 0 || batch.Runs is not [var run] ? null : (Start(batch, run).to(Model.Dtype), _config.AuxiliaryLossWeight);

    public override void MergeAndUnload() =>
        throw new NotSupportedException("SHADOW adds what its network makes of the text and changes no weight, so it cannot be merged. Serve it unmerged.");

    protected override void InitializeShared(Generator generator)
    {
        _backbone.Initialize(generator, Model.Device);
        _blocks.ForEach(entry => entry.Block.Initialize(generator, Model.Device));
    }

    public override void Dispose()
    {
        base.Dispose();
        _backbone.Dispose();
    }

    protected override void Detach()
    {
        base.Detach();
        _sites.ForEach(site => site.Detach(this));
    }

    private static bool Takes(ShadowConfig config, HiddenSite site) => config.TargetModules!.Matches(PathOf(site))
        && config.ExcludeModules?.Matches(PathOf(site)) is not true
        && (config.LayersToTransform is null || config.LayersToTransform.Values.Contains(site.Layer));

    /// <summary>The block that ends at a site.</summary>
    private static string PathOf(HiddenSite site) => site.Path[..site.Path.LastIndexOf('.')];
}
