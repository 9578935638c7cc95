using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaptionPrompt;

/// <summary>Vectors and a gate at the attention of the top layers.</summary>
internal sealed class AdaptionPromptAdapter : Adapter
{
    private readonly List<(string Path, AdaptionPromptPart Part)> _attention;

    public AdaptionPromptAdapter(AdaptionPromptConfig config, PretrainedModel model)
        : base(config, model)
    {
        var attention = model.Modules().Where(module => ModuleSelector.EndsWithName(module.Path, config.TargetModules!)).ToList();
        if (attention.Count == 0)
        {
            throw new AdapterException("target_modules", $"No attention of this {model.Config.ModelType} is called '{config.TargetModules}'. Leave the field out.");
        }

        if (attention.Count < config.AdapterLayers)
        {
            throw new AdapterException("adapter_layers", $"The model has {attention.Count} layers, fewer than {config.AdapterLayers}.");
        }

        _attention = [.. attention.TakeLast(config.AdapterLayers).Select(module => (module.Path, new AdaptionPromptPart(config, model, module.Path)))];
        foreach (var (key, weight) in Shared)
        {
            weight.Path = key;
        }

        AttentionParts = model.Config.ModelType == "gpt2" ? new Dictionary<int, AttentionPart>() : _attention
            .Select((entry, i) => (Layer: attention.Count - _attention.Count + i, entry.Part)).ToDictionary(entry => entry.Layer, entry => (AttentionPart)entry.Part);
        if (model.Config.ModelType == "gpt2")
        {
            foreach (var (path, part) in _attention)
            {
                // PEFT adds behind GPT-2's output projection, where the queries are gone: they are kept on their way.
                Attach(part.Keys, new KeptQueries(part));
                Attach(AdaptionPromptPart.Projection(model, $"{path}.c_proj"), new AdaptionBehindOutput(part));
            }
        }
    }

    public override IReadOnlyDictionary<int, AttentionPart> AttentionParts { get; }

    protected override IEnumerable<(string Key, Weight Weight)> Shared =>
        _attention.SelectMany(entry => entry.Part.State.Select(state => ($"{Prefix}{entry.Path}.{state.Name}", state.Weight)));

    public override void MergeAndUnload() =>
        throw new NotSupportedException("ADAPTION_PROMPT adds to what attention gives and changes no weight, so it cannot be merged. Serve it unmerged.");

    protected override void InitializeShared(Generator generator) => _attention.ForEach(entry => entry.Part.Initialize(generator, Model.Device));
}
