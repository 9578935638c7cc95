using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// A flexible head of the library: a small stack of layers on the last hidden states. One that makes logits over the vocabulary
/// ends in the model's table of words, and on a causal language model it stands where the model's own head is.
/// </summary>
public sealed class HubPredictionHead : HubHead
{
    private readonly HubAdapter _adapter;
    private readonly List<(int Index, HubModule Module)> _layers = [];
    private readonly Func<Tensor, Tensor> _act;
    private readonly bool _isLanguageModel;
    private readonly Embedding? _words;
    private readonly Weight? _decoder;
    private readonly Weight? _decoderBias;
    private readonly int _decoderIndex;
    private Site? _site;

    private HubPredictionHead(HubAdapter adapter, JsonObject config)
    {
        _adapter = adapter;
        Config = config;
        Type = (string?)config["head_type"] ?? throw new AdapterException("head_type", "is missing from head_config.json.");
        _isLanguageModel = Type is "causal_lm" or "masked_lm";
        var activation = (string?)config["activation_function"];
        _act = activation is null ? static x => x.alias() : HubActivation.Of(activation);
        var (hidden, layers) = (adapter.Model.HiddenSize, (int?)config["layers"] ?? 1);
        if (!_isLanguageModel)
        {
            if (Type is not ("classification" or "tagging" or "question_answering") || (bool?)config["use_pooler"] is true)
            {
                throw new AdapterException("head_type", $"'{Type}'{((bool?)config["use_pooler"] is true ? " with use_pooler" : "")} is not supported. Load the adapter without its head.");
            }

            var labels = (int?)config["num_labels"] ?? throw new AdapterException("num_labels", "is missing from head_config.json.");
            for (var layer = 0; layer < layers; layer++)
            {
                _layers.Add(((layer * (activation is null ? 2 : 3)) + 1, new DenseLinear(hidden, layer < layers - 1 ? hidden : labels, (bool?)config["bias"] ?? true)));
            }

            return;
        }

        var width = (int?)config["embedding_size"] ?? hidden;
        for (var layer = 0; layer < layers - 1; layer++)
        {
            _layers.Add((_decoderIndex, new DenseLinear(hidden, width)));
            _decoderIndex += activation is null ? 1 : 2;
            if ((bool?)config["layer_norm"] is true)
            {
                _layers.Add((_decoderIndex++, new HubNorm(width, adapter.Model.Config.Number("layer_norm_eps", 1e-12))));
            }
        }

        _words = adapter.Model.Modules().OfType<Embedding>().First(); // every model's first table is that of words
        _decoder = new Weight([.. _words.Weight.Shape]);
        _decoderBias = (bool?)config["bias"] is false ? null : new Weight(_words.Count);
    }

    /// <summary>The head's own config, as <c>head_config.json</c> has it.</summary>
    public JsonObject Config { get; }

    /// <summary>What it predicts: <c>classification</c>, <c>tagging</c>, <c>question_answering</c>, <c>causal_lm</c>, <c>masked_lm</c>.</summary>
    public string Type { get; }

    internal override long AddedCount => State.Where(entry => !ReferenceEquals(entry.Weight, _decoder)).Sum(entry => entry.Weight.ElementCount);

    internal override IEnumerable<(string Key, Weight Weight)> State
    {
        get
        {
            var root = $"heads.{_adapter.Name}";
            foreach (var (index, module) in _layers)
            {
                foreach (var (name, weight) in module.State)
                {
                    yield return ($"{root}.{index}.{name}", weight);
                }
            }

            if (_decoder is not null)
            {
                yield return ($"{root}.{_decoderIndex}.weight", _decoder);
            }

            if (_decoderBias is not null)
            {
                yield return ($"{root}.{_decoderIndex}.bias", _decoderBias);
            }
        }
    }

    internal static HubPredictionHead Create(HubAdapter adapter, JsonObject config)
    {
        var head = new HubPredictionHead(adapter, config);
        if (head._isLanguageModel && adapter.Model.OutputHead is { } path && adapter.Model.Find(path) is Site site)
        {
            head._site = site;
            site.Attach(adapter, new Replacement(head));
        }

        return head;
    }

    /// <summary>Scores for the last hidden states [n, hidden] of a batch: [sequences, labels], or [n, labels or vocabulary].</summary>
    public Tensor Predict(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        if (Type == "classification")
        {
            var reads = _adapter.Model is CausalLanguageModel ? batch.Starts.Skip(1).Select(end => end - 1L) : batch.Starts.SkipLast(1).Select(start => (long)start);
            hidden = hidden.index_select(0, tensor(reads.ToArray(), device: hidden.device)); // [sequences, hidden]
        }

        return Apply(hidden).MoveToOuterDisposeScope();
    }

    internal override void Initialize(Generator generator, Device device)
    {
        foreach (var (_, module) in _layers)
        {
            (module as DenseLinear)?.Initialize(LinearStart.Bert, generator, device);
            (module as HubNorm)?.Initialize(device);
        }

        _decoder?.Set(_words!.Weight.Value.alias());
        _decoderBias?.Zeros(device);
    }

    internal override void Detach() => _site?.Detach(_adapter);

    private Tensor Apply(Tensor x)
    {
        for (var i = 0; i < _layers.Count; i++)
        {
            x = _layers[i].Module.Forward(x);
            x = _layers[i].Module is DenseLinear && (_isLanguageModel || i < _layers.Count - 1) ? _act(x) : x;
        }

        if (!_isLanguageModel)
        {
            return x;
        }

        x = _adapter.Inverted(x);
        return F.linear(x, _decoder!.Value.to(x.dtype), _decoderBias?.Value.to(x.dtype)); // [n, vocabulary]
    }

    /// <summary>The head at the place of the model's own.</summary>
    private sealed class Replacement(HubPredictionHead head) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => [];

        public override Tensor Forward(Tensor x, in SiteCall call)
        {
            using var scope = NewDisposeScope();
            return head.Apply(x).MoveToOuterDisposeScope();
        }

        public override void Initialize(Site site, Generator generator)
        {
        }
    }
}
