using PeftServer.Engine.Adapters;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// T5 and mT5: an encoder and a decoder that know positions by their distance alone. <see href="https://arxiv.org/abs/1910.10683"/>.
/// T5 1.1 and mT5 have a gated feed-forward part and a head of their own.
/// </summary>
internal sealed class T5ForConditionalGeneration : Seq2SeqLanguageModel
{
    public readonly Embedding shared;
    public readonly T5Stack encoder;
    public readonly T5Stack decoder;
    public readonly Linear lm_head;
    private readonly KeptScalar? _scale;

    public T5ForConditionalGeneration(PretrainedConfig config)
        : base(config)
    {
        // The head is the table where outputs are scaled: tie_word_embeddings once said so; transformers 5 writes it as true for
        // every T5. mT5 always has a head of its own.
        var isTied = config.Flag("tie_word_embeddings", true);
        var scales = config.Flag("scale_decoder_outputs", config.ModelType == "t5" && isTied);
        shared = new Embedding(config.VocabSize, HiddenSize);
        encoder = new T5Stack(config, shared.weight, isDecoder: false);
        decoder = new T5Stack(config, shared.weight, isDecoder: true);
        lm_head = new Linear(HiddenSize, config.VocabSize, tied: scales && isTied ? shared.weight : null);
        _scale = scales ? new KeptScalar(Math.Pow(HiddenSize, -0.5)) : null;
    }

    public override int HiddenSize => Config.Int("d_model");

    public override int LayerCount => decoder.block.Count;

    public override int MaxLength => Config.Int("n_positions", 512);

    public override string OutputHead => nameof(lm_head);

    public override Tensor Encode(ForwardBatch batch) => encoder.Forward(batch);

    public override Tensor Hidden(ForwardBatch batch) => decoder.Forward(batch);

    public override Tensor Logits(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return lm_head.Forward(_scale is null ? hidden : hidden.mul(_scale), batch).MoveToOuterDisposeScope(); // [m, vocabulary]
    }

    // Positions are distances: one table of them serves a batch, and all its keys are shifted alike.
    internal override object? BatchKey(IReadOnlyList<Adapter> adapters) => (
        adapters.Sum(adapter => adapter.DistanceShift(encodes: false)),
        adapters.FirstOrDefault(adapter => adapter.Parts.Any(entry => entry.Site == decoder.block[0].SelfAttention.relative_attention_bias)));

    protected override bool Ignores(string name) => T5Body.IsNeverUsed(name);
}

/// <summary>T5 without a head.</summary>
internal sealed class T5Body : EncoderDecoder
{
    public readonly Embedding shared;
    public readonly T5Stack encoder;
    public readonly T5Stack decoder;

    public T5Body(PretrainedConfig config)
    {
        _ = config.Has("scale_decoder_outputs"); // of the language-modelling head alone
        Width = config.Int("d_model");
        shared = new Embedding(config.VocabSize, Width);
        encoder = new T5Stack(config, shared.weight, isDecoder: false);
        decoder = new T5Stack(config, shared.weight, isDecoder: true);
    }

    public override int Width { get; }

    public override Tensor Encode(ForwardBatch batch) => encoder.Forward(batch);

    public override Tensor Decode(ForwardBatch batch) => decoder.Forward(batch);

    /// <summary>T5's first checkpoints hold a bias for attention across, which nothing ever used.</summary>
    internal static bool IsNeverUsed(string name) => name.EndsWith("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", StringComparison.Ordinal);

    /// <summary>What a checkpoint of the whole model holds beside the encoder.</summary>
    internal static bool IsOfDecoder(string name) =>
        name.StartsWith("decoder.", StringComparison.Ordinal) || name.StartsWith("transformer.decoder.", StringComparison.Ordinal) || name == "lm_head.weight";
}

/// <summary>T5's encoder with its table of words.</summary>
internal sealed class T5EncoderBody : Module
{
    public readonly Embedding shared;
    public readonly T5Stack encoder;

    public T5EncoderBody(PretrainedConfig config)
    {
        _ = (config.Has("scale_decoder_outputs"), config.Has("num_decoder_layers")); // of what is not here
        shared = new Embedding(config.VocabSize, config.Int("d_model"));
        encoder = new T5Stack(config, shared.weight, isDecoder: false);
    }
}

internal sealed class T5Stack : Module
{
    public readonly Embedding embed_tokens;
    public readonly IReadOnlyList<T5Block> block;
    public readonly RmsNorm final_layer_norm;
    private readonly T5Positions _positions;

    public T5Stack(PretrainedConfig config, Weight table, bool isDecoder)
    {
        var width = config.Int("d_model");
        var count = isDecoder ? config.Int("num_decoder_layers", config.Int("num_layers")) : config.Int("num_layers");
        _positions = new T5Positions(config.Int("relative_attention_num_buckets", 32), config.Int("relative_attention_max_distance", 128), !isDecoder);
        embed_tokens = new Embedding(config.VocabSize, width, table);
        block = [.. Enumerable.Range(0, count).Select(index => new T5Block(config, index, isDecoder))];
        final_layer_norm = new RmsNorm(width, config.Number("layer_norm_epsilon", 1e-6));
    }

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embed_tokens.Forward(batch.Ids, batch); // [n, width]
        using var bias = _positions.Of(block[0].SelfAttention.relative_attention_bias!, batch);
        foreach (var one in block)
        {
            x = GradientCheckpoints.Layer(x, batch, h => one.Forward(h, bias, batch), bias);
        }

        return final_layer_norm.Forward(x, batch).MoveToOuterDisposeScope(); // [n, width]
    }
}

/// <summary>Attention to itself, in a decoder attention to the encoder's text, feed-forward: each behind a norm.</summary>
internal sealed class T5Block : Module
{
    public readonly IReadOnlyList<Module> layer;
    public readonly HiddenSite reft_layer;
    private readonly T5AttentionLayer _self;
    private readonly T5AttentionLayer? _across;
    private readonly T5FeedForwardLayer _feedForward;

    public T5Block(PretrainedConfig config, int index, bool isDecoder)
    {
        var number = isDecoder ? config.Int("num_layers") + index : index; // adapters count a decoder's layers on
        _self = new T5AttentionLayer(config, index, across: false, new ResidualSite(Sublayer.SelfAttention, number));
        _across = isDecoder ? new T5AttentionLayer(config, index, across: true, new ResidualSite(Sublayer.CrossAttention, number)) : null;
        _feedForward = new T5FeedForwardLayer(config, new ResidualSite(Sublayer.FeedForward, number));
        reft_layer = new HiddenSite(config.Int("d_model"), number);
        layer = _across is null ? [_self, _feedForward] : [_self, _across, _feedForward];
    }

    public T5Attention SelfAttention => _self.SelfAttention!;

    public Tensor Forward(Tensor x, AttentionBias bias, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = _self.Forward(x, bias, batch); // [n, width]
        x = _across?.Forward(x, null, batch) ?? x;
        return reft_layer.Forward(_feedForward.Forward(x, batch), batch).MoveToOuterDisposeScope();
    }
}

internal sealed class T5AttentionLayer(PretrainedConfig config, int index, bool across, ResidualSite end) : Module
{
    public readonly T5Attention? SelfAttention = across ? null : new(config, index, across);
    public readonly T5Attention? EncDecAttention = across ? new(config, index, across) : null;
    public readonly RmsNorm layer_norm = new(config.Int("d_model"), config.Number("layer_norm_epsilon", 1e-6));
    public readonly ResidualSite adapters = end;

    public Tensor Forward(Tensor x, AttentionBias? bias, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return adapters.Add((SelfAttention ?? EncDecAttention)!.Forward(layer_norm.Forward(x, batch), bias, batch), x, batch).MoveToOuterDisposeScope();
    }
}

/// <summary>Attention without a scale, which T5's initialization makes up for.</summary>
internal sealed class T5Attention : Module
{
    public readonly Linear q;
    public readonly Linear k;
    public readonly Linear v;
    public readonly Linear o;
    public readonly Embedding? relative_attention_bias;
    private readonly int _heads;
    private readonly int _width;
    private readonly int _index;
    private readonly bool _across;

    public T5Attention(PretrainedConfig config, int index, bool across)
    {
        (_index, _across, _heads, _width) = (index, across, config.Int("num_heads"), config.Int("d_kv", 64));
        var (hidden, inner) = (config.Int("d_model"), _heads * _width);
        (q, k, v) = (new Linear(hidden, inner), new Linear(hidden, inner), new Linear(hidden, inner));
        o = new Linear(inner, hidden);
        relative_attention_bias = index == 0 && !across ? new Embedding(config.Int("relative_attention_num_buckets", 32), _heads) : null;
    }

    public Tensor Forward(Tensor x, AttentionBias? bias, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var queries = q.Forward(x, batch).view(-1, _heads, _width); // [n, H, D]
        var options = new AttentionOptions(1, Bidirectional: _across || bias is T5PositionBias { IsBidirectional: true }, Bias: bias);
        Tensor y; // [n, H, D]
        if (_across)
        {
            y = EncodedSource.Attend(_index, queries, k, v, batch, options);
        }
        else
        {
            var keys = k.Forward(x, batch).view(-1, _heads, _width);
            var values = v.Forward(x, batch).view(-1, _heads, _width);
            y = batch.Attention.Attend(_index, queries, keys, values, options);
        }

        return o.Forward(y.reshape(-1, _heads * _width), batch).MoveToOuterDisposeScope(); // [n, width]
    }
}

internal sealed class T5FeedForwardLayer(PretrainedConfig config, ResidualSite end) : Module
{
    public readonly T5FeedForward DenseReluDense = new(config);
    public readonly RmsNorm layer_norm = new(config.Int("d_model"), config.Number("layer_norm_epsilon", 1e-6));
    public readonly ResidualSite adapters = end;

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return adapters.Add(DenseReluDense.Forward(layer_norm.Forward(x, batch), batch), x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class T5FeedForward : Module
{
    public readonly Linear? wi;
    public readonly Linear? wi_0;
    public readonly Linear? wi_1;
    public readonly Linear wo;
    private readonly Func<Tensor, Tensor> _act;

    public T5FeedForward(PretrainedConfig config)
    {
        const string Gated = "gated-";
        var form = config.Text("feed_forward_proj", config.ModelType == "mt5" ? "gated-gelu" : "relu");
        var isGated = form.StartsWith(Gated, StringComparison.Ordinal);
        var act = isGated ? form[Gated.Length..] : form;

        // "gated-gelu" is older than the exact GELU and means the approximation.
        _act = Activation.Find(form == "gated-gelu" ? "gelu_new" : act) ?? throw config.Unsupported("feed_forward_proj", form);
        var (hidden, inner) = (config.Int("d_model"), config.Int("d_ff"));
        (wi, wi_0, wi_1) = isGated ? (null, new Linear(hidden, inner), new Linear(hidden, inner)) : (new Linear(hidden, inner), (Linear?)null, (Linear?)null);
        wo = new Linear(inner, hidden);
    }

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var inner = wi is not null ? _act(wi.Forward(x, batch)) : _act(wi_0!.Forward(x, batch)).mul(wi_1!.Forward(x, batch)); // [n, inner]
        return wo.Forward(inner, batch).MoveToOuterDisposeScope();
    }
}
