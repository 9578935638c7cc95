using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Shadow;

/// <summary>
/// The network that s starts from: a model of the base's kind with few layers, whose weights are the adapter's. It works in the type of its
/// weights, on the base's embeddings or on a table of its own.
/// </summary>
internal sealed class ShadowBackbone : IDisposable
{
    private const string BodyPrefix = "model.";

    private readonly CausalLanguageModel _model;
    private readonly Weight? _projection; // (base's width, own width)
    private readonly Embedding? _shared;

    public ShadowBackbone(ShadowConfig config, CausalLanguageModel model)
    {
        var layers = config.ShadowNumHiddenLayers ?? 1;
        if (layers > model.LayerCount)
        {
            throw new AdapterException("shadow_num_hidden_layers", $"{layers} is more than the base's {model.LayerCount}.");
        }

        var own = model.Config.WithLayers([.. Enumerable.Range(0, layers)], model.LayerCount).With(Widths(config));
        _model = (CausalLanguageModel)PretrainedModel.Plan(own);
        _shared = config.ShareEmbeddings && _model.HiddenSize == model.HiddenSize ? model.TokenEmbedding : null;
        _projection = _model.HiddenSize == model.HiddenSize ? null : new Weight(model.HiddenSize, _model.HiddenSize) { Trainable = true };
        foreach (var (_, weight) in State)
        {
            weight.Trainable = true;
        }
    }

    /// <summary>Its weights by the names of the file.</summary>
    public IEnumerable<(string Key, Weight Weight)> State => _model.Sites()
        .Where(site => site.Path != _model.OutputHead && !(_shared is not null && site is Embedding))
        .SelectMany(site => new (string Name, Weight? Weight)[] { ("weight", site.Weight), ("bias", site.Bias) }
            .Where(entry => entry.Weight is not null)
            .Select(entry => ($"base_model.shadow_backbone.default.{site.Path[BodyPrefix.Length..]}.{entry.Name}", entry.Weight!)))
        .Concat(_projection is null ? [] : [("base_model.shadow_projection.default.weight", _projection)]);

    /// <summary>Lets the embeddings of the base stand in for its own, for tokens under <paramref name="adapter"/>.</summary>
    public void Share(Adapter adapter)
    {
        if (_shared is not null)
        {
            _model.TokenEmbedding!.Attach(adapter, new SharedEmbedding(_shared, State.First().Weight));
        }
    }

    /// <summary>s before the first block, for the tokens of a run: [n, base's width].</summary>
    public Tensor Begin(ForwardBatch batch, AdapterRun run, Adapter adapter)
    {
        using var scope = NewDisposeScope();
        using var first = batch.FirstPass(run, [adapter]);
        var hidden = _model.Hidden(first); // [n, own width]
        return (_projection is null ? hidden : F.linear(hidden, _projection.Value)).MoveToOuterDisposeScope();
    }

    /// <summary>As transformers starts a model.</summary>
    public void Initialize(Generator generator, Device device)
    {
        var deviation = _model.Config.Number("initializer_range", 0.02);
        foreach (var site in _model.Sites().Where(site => State.Any(entry => entry.Weight == site.Weight)))
        {
            if (site is RmsNorm or LayerNorm)
            {
                site.Weight.Normal(0, generator, device);
                if (site is not RmsNorm { HasOffset: true })
                {
                    site.Weight.Ones(device);
                }
            }
            else
            {
                site.Weight.Normal(deviation, generator, device);
            }

            site.Bias?.Zeros(device);
        }

        _projection?.Kaiming(_model.HiddenSize, generator, device);
    }

    public void Dispose() => _model.Dispose();

    private static IEnumerable<(string Name, int Value)> Widths(ShadowConfig config)
    {
        (string Name, int? Value)[] all =
            [("hidden_size", config.ShadowHiddenSize), ("intermediate_size", config.ShadowIntermediateSize), ("num_attention_heads", config.ShadowNumAttentionHeads)];
        return all.Where(entry => entry.Value is not null).Select(entry => (entry.Name, entry.Value!.Value));
    }

    /// <summary>The base's rows in place of the shadow's own.</summary>
    private sealed class SharedEmbedding(Embedding table, Weight like) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => [];

        public override Tensor Forward(Tensor x, in SiteCall call) => table.Frozen(x).to(like.Value.dtype); // [n, width]

        public override void Initialize(Site site, Generator generator)
        {
        }
    }
}
