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
        if (model.Config.ModelType is not ("llama" or "mistral"))
        {
            throw new AdapterException("peft_type", $"ADAPTION_PROMPT is not supported on {model.Config.ModelType}. It is on llama and mistral.");
        }

        var attention = model.Modules().Where(module => ModuleSelector.EndsWithName(module.Path, config.TargetModules!)).ToList();
        if (attention.Count == 0)
        {
            throw new AdapterException("target_modules", $"No attention is called '{config.TargetModules}'. On {model.Config.ModelType} it is self_attn.");
        }

        if (attention.Count < config.AdapterLayers)
        {
            throw new AdapterException("adapter_layers", $"The model has {attention.Count} layers, fewer than {config.AdapterLayers}.");
        }

        _attention = [.. attention.TakeLast(config.AdapterLayers).Select(module => (module.Path, new AdaptionPromptPart(config, model, module.Path)))];
        AttentionParts = _attention.Select((entry, i) => (Layer: attention.Count - _attention.Count + i, entry.Part))
            .ToDictionary(entry => entry.Layer, entry => (AttentionPart)entry.Part);
        foreach (var (key, weight) in Shared)
        {
            weight.Path = key;
        }
    }

    public override IReadOnlyDictionary<int, AttentionPart> AttentionParts { get; }

    protected override IEnumerable<(string Key, Weight Weight)> Shared =>
        _attention.SelectMany(entry => entry.Part.State.Select(state => ($"{Prefix}{entry.Path}.{state.Name}", state.Weight)));

    public override void MergeAndUnload() =>
        throw new NotSupportedException("ADAPTION_PROMPT adds to what attention gives and changes no weight, so it cannot be merged. Serve it unmerged.");

    protected override void InitializeShared(Generator generator) => _attention.ForEach(entry => entry.Part.Initialize(generator, Model.Device));
}
