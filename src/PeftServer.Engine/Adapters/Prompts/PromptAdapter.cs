using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>
/// Virtual tokens before every sequence. While it trains, the rows come from the encoder; what is saved, loaded and served are the rows alone.
/// </summary>
internal sealed class PromptAdapter : Adapter
{
    private readonly PromptConfig _config;
    private readonly PromptEncoder _encoder;
    private readonly Weight _rows;
    private bool _isTraining;

    public PromptAdapter(PromptConfig config, PretrainedModel model, PromptEncoder encoder)
        : base(config, model)
    {
        (_config, _encoder) = (config, encoder);
        _rows = config.IsPrefix
            ? new Weight(config.NumVirtualTokens, (long)config.NumLayers!.Value * 2 * config.TokenDim!.Value)
            : new Weight((long)config.NumVirtualTokens * config.NumTransformerSubmodules!.Value, config.TokenDim!.Value);
        foreach (var (key, weight) in SharedTraining.Concat(Shared))
        {
            weight.Path = key;
        }

        if (!config.IsPrefix)
        {
            var embedding = model.TokenEmbedding
                ?? throw new AdapterException("peft_type", $"{model.Config.ModelType} has no embedding of its vocabulary to put a prompt before.");
            if (embedding.Width != config.TokenDim)
            {
                throw new AdapterException("token_dim", $"The embeddings of this model are {embedding.Width} wide, its layers {config.TokenDim}; {PeftName} needs them equal.");
            }

            Attach(embedding, new PromptRowsPart(this));
        }

        AttachSavedModules(config.ModulesToSave);
    }

    /// <summary>PEFT wraps the model itself for these methods, so paths have one part less before them.</summary>
    protected override string KeyPrefix => "base_model.";

    protected override IEnumerable<(string Key, Weight Weight)> Shared => [.. _encoder.Companions, ("prompt_embeddings", _rows)];

    protected override IEnumerable<(string Key, Weight Weight)> SharedTraining =>
        _encoder.Weights.Select(entry => ($"prompt_encoder.{entry.Name}", entry.Weight));

    public override int PromptRows => _config.IsPrefix ? 0 : _config.NumVirtualTokens;

    public override int VirtualTokens => _config.NumVirtualTokens;

    /// <summary>Tokens of the prompt that training learns, in every row.</summary>
    public override IReadOnlyList<PromptTarget> PromptTargets => _encoder.Targets;

    private string PeftName => Config.PeftType;

    public override AttentionPrefix? CreatePrefix()
    {
        if (!_config.IsPrefix)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var (tokens, layers, heads) = (_config.NumVirtualTokens, _config.NumLayers!.Value, _config.NumAttentionHeads!.Value);
        var cache = Rows(draws: null).to(Model.Dtype).view(tokens, layers * 2, heads, -1); // [P, 2L, G, D]: keys and values of each layer in turn

        // With an encoder PEFT doubles the list of pairs and deals it out to the decoder's own and cross attention, and drops the latter's.
        var apart = _config.NumTransformerSubmodules!.Value;
        var byLayer = Enumerable.Range(0, layers).ToDictionary(layer => layer, layer => apart * layer % layers is var pair
            ? (cache.select(1, 2 * pair), cache.select(1, (2 * pair) + 1)) : default);
        return new AttentionPrefix(byLayer, tokens);
    }

    /// <summary>The rows before a sequence of a task, [rows, width]. With gradients where they are on.</summary>
    public Tensor RowsFor(int task, Generator? draws)
    {
        using var scope = NewDisposeScope();
        return _encoder.ForTask(Rows(draws), task).to(Model.Dtype).MoveToOuterDisposeScope();
    }

    public override void SetTraining(bool training)
    {
        if (training && _encoder.Weights.Any(entry => !entry.Weight.IsLoaded))
        {
            using var frozen = no_grad();
            using var scope = NewDisposeScope();
            _encoder.Take(_rows.Value);
            if (_encoder.Weights.FirstOrDefault(entry => !entry.Weight.IsLoaded).Name is { } missing)
            {
                throw new AdapterException("peft_type", $"{PeftName} saves what its encoder gives, not the encoder ({missing}), so a loaded one cannot train on. Start a new one.");
            }
        }

        base.SetTraining(training);
        _isTraining = training;
        if (!training)
        {
            Settle();
        }
    }

    public override void MergeAndUnload() =>
        throw new NotSupportedException($"{PeftName} puts virtual tokens before a sequence and changes no weight, so it cannot be merged. Serve it unmerged.");

    protected internal override void Settle()
    {
        if (_encoder.Weights.All(entry => entry.Weight.IsLoaded))
        {
            using var frozen = no_grad();
            using var scope = NewDisposeScope();
            _rows.Set(_encoder.Encode().detach().clone());
        }
    }

    protected override void InitializeShared(Generator generator)
    {
        _encoder.Initialize(Model, generator);
        Settle();
    }

    private Tensor Rows(Generator? draws) => _isTraining ? _encoder.Encode(draws) : _rows.Value.alias();
}
