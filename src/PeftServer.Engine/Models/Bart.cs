using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>BART: learned positions that begin at 2, norms behind each part. <see href="https://arxiv.org/abs/1910.13461"/>.</summary>
internal sealed class BartForConditionalGeneration : Seq2SeqLanguageModel
{
    public readonly BartModel model;
    public readonly Weight final_logits_bias;
    public readonly Linear lm_head;

    public BartForConditionalGeneration(PretrainedConfig config)
        : base(config)
    {
        if (!config.Flag("tie_word_embeddings", true))
        {
            throw config.Unsupported("tie_word_embeddings", false);
        }

        model = new BartModel(config);
        final_logits_bias = new Weight(1, config.VocabSize) { IsBuffer = true };
        lm_head = new Linear(HiddenSize, config.VocabSize, tied: model.shared.weight);
    }

    public override int HiddenSize => Config.Int("d_model");

    public override int LayerCount => model.decoder.layers.Count;

    public override int MaxLength => Config.Int("max_position_embeddings", 1024);

    public override string OutputHead => nameof(lm_head);

    public override Tensor Encode(ForwardBatch batch) => model.Encode(batch);

    public override Tensor Hidden(ForwardBatch batch) => model.Decode(batch);

    public override Tensor Logits(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return lm_head.Forward(hidden, batch).Plus(final_logits_bias.Value).MoveToOuterDisposeScope(); // [m, vocabulary]
    }
}

/// <summary>BART's decoder by itself, which continues text: what it has for an encoder's text is there and not used.</summary>
internal sealed class BartForCausalLM : CausalLanguageModel
{
    public readonly BartDecoderBody model;
    public readonly Linear lm_head;

    public BartForCausalLM(PretrainedConfig config)
        : base(config)
    {
        _ = (config.Has("encoder_attention_heads"), config.Has("encoder_ffn_dim"), config.Has("encoder_layers")); // of what is not here
        model = new BartDecoderBody(config);
        lm_head = new Linear(HiddenSize, config.VocabSize, tied: config.Flag("tie_word_embeddings", true) ? model.decoder.embed_tokens.weight : null);
    }

    public override int HiddenSize => Config.Int("d_model");

    public override int LayerCount => model.decoder.layers.Count;

    public override int MaxLength => Config.Int("max_position_embeddings", 1024);

    public override string OutputHead => nameof(lm_head);

    protected override Tensor Through(ForwardBatch batch) => model.decoder.Forward(batch);

    protected override Tensor Scores(Tensor hidden, ForwardBatch batch) => lm_head.Forward(hidden, batch); // [m, vocabulary]
}

internal sealed class BartDecoderBody(PretrainedConfig config) : Module
{
    public readonly BartStack decoder = new(config, null, isDecoder: true);
}

internal sealed class BartModel : EncoderDecoder
{
    public readonly Embedding shared;
    public readonly BartStack encoder;
    public readonly BartStack decoder;

    public BartModel(PretrainedConfig config)
    {
        shared = new Embedding(config.VocabSize, config.Int("d_model"));
        encoder = new BartStack(config, shared.weight, isDecoder: false);
        decoder = new BartStack(config, shared.weight, isDecoder: true);
    }

    public override int Width => shared.Width;

    public override Tensor Encode(ForwardBatch batch) => encoder.Forward(batch);

    public override Tensor Decode(ForwardBatch batch) => decoder.Forward(batch);
}

/// <summary>What BART's encoder and decoder each read of config.json under a name of their own.</summary>
internal sealed record BartShape(int Width, int Layers, int Heads, int Inner, bool IsDecoder, int FirstLayer)
{
    public static BartShape Read(PretrainedConfig config, bool isDecoder)
    {
        var side = isDecoder ? "decoder" : "encoder";
        return new BartShape(config.Int("d_model"), config.Int($"{side}_layers"), config.Int($"{side}_attention_heads"), config.Int($"{side}_ffn_dim"), isDecoder,
            isDecoder ? config.Int("encoder_layers") : 0);
    }
}

internal sealed class BartStack : Module
{
    private static readonly KeptScalar FirstPosition = new(2L);

    public readonly Embedding embed_tokens;
    public readonly Embedding embed_positions;
    public readonly IReadOnlyList<BartLayer> layers;
    public readonly LayerNorm layernorm_embedding;
    private readonly KeptScalar? _scale;

    public BartStack(PretrainedConfig config, Weight? table, bool isDecoder)
    {
        var shape = BartShape.Read(config, isDecoder);
        embed_tokens = new Embedding(config.VocabSize, shape.Width, table) { LookupScale = config.Flag("scale_embedding", false) ? Math.Sqrt(shape.Width) : 1 };
        embed_positions = new Embedding(config.Int("max_position_embeddings", 1024) + 2, shape.Width);
        layers = [.. Enumerable.Range(0, shape.Layers).Select(index => new BartLayer(config, shape, index))];
        layernorm_embedding = new LayerNorm(shape.Width, 1e-5);
        _scale = config.Flag("scale_embedding", false) ? new KeptScalar(Math.Sqrt(shape.Width)) : null;
    }

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embed_tokens.Forward(batch.Ids, batch); // [n, width]
        x = (_scale is null ? x : x.mul(_scale)).Plus(embed_positions.Forward(batch.Positions.add(FirstPosition), batch));
        x = layernorm_embedding.Forward(x, batch);
        foreach (var layer in layers)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, batch));
        }

        return x.MoveToOuterDisposeScope(); // [n, width]
    }
}

/// <summary>Attention to itself, in a decoder attention to the encoder's text, feed-forward: a norm behind each sum.</summary>
internal sealed class BartLayer(PretrainedConfig config, BartShape shape, int index) : Module
{
    public readonly BartAttention self_attn = new(shape, index, across: false);
    public readonly LayerNorm self_attn_layer_norm = new(shape.Width, 1e-5);
    public readonly BartAttention? encoder_attn = shape.IsDecoder ? new(shape, index, across: true) : null;
    public readonly LayerNorm? encoder_attn_layer_norm = shape.IsDecoder ? new(shape.Width, 1e-5) : null;
    public readonly Linear fc1 = new(shape.Width, shape.Inner, hasBias: true);
    public readonly Linear fc2 = new(shape.Inner, shape.Width, hasBias: true);
    public readonly LayerNorm final_layer_norm = new(shape.Width, 1e-5);
    public readonly ResidualSite attention_adapters = new(Sublayer.SelfAttention, shape.FirstLayer + index);
    public readonly ResidualSite? cross_attention_adapters = shape.IsDecoder ? new(Sublayer.CrossAttention, shape.FirstLayer + index) : null;
    public readonly ResidualSite output_adapters = new(Sublayer.FeedForward, shape.FirstLayer + index);
    public readonly HiddenSite reft_layer = new(shape.Width, shape.FirstLayer + index);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "activation_function", "gelu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention_adapters.Add(self_attn.Forward(x, batch), x, batch, self_attn_layer_norm); // [n, width]
        if (encoder_attn is not null && batch.Sources.Count > 0)
        {
            x = cross_attention_adapters!.Add(encoder_attn.Forward(x, batch), x, batch, encoder_attn_layer_norm);
        }

        x = output_adapters.Add(fc2.Forward(_act(fc1.Forward(x, batch)), batch), x, batch, final_layer_norm);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class BartAttention(BartShape shape, int index, bool across) : Module
{
    public readonly Linear k_proj = new(shape.Width, shape.Width, hasBias: true);
    public readonly Linear v_proj = new(shape.Width, shape.Width, hasBias: true);
    public readonly Linear q_proj = new(shape.Width, shape.Width, hasBias: true);
    public readonly Linear out_proj = new(shape.Width, shape.Width, hasBias: true);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(shape.Width / shape.Heads), Bidirectional: across || !shape.IsDecoder);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var headDim = shape.Width / shape.Heads;
        var q = q_proj.Forward(x, batch).view(-1, shape.Heads, headDim); // [n, H, D]
        Tensor y; // [n, H, D]
        if (across)
        {
            y = EncodedSource.Attend(index, q, k_proj, v_proj, batch, _options);
        }
        else
        {
            var k = k_proj.Forward(x, batch).view(-1, shape.Heads, headDim);
            var v = v_proj.Forward(x, batch).view(-1, shape.Heads, headDim);
            y = batch.Attention.Attend(index, q, k, v, _options);
        }

        return out_proj.Forward(y.reshape(-1, shape.Width), batch).MoveToOuterDisposeScope(); // [n, width]
    }
}
