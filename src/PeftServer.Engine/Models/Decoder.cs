using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>A decoder without its head: token ids in, hidden states out.</summary>
internal abstract class Decoder : Module
{
    public abstract Embedding TokenEmbedding { get; }

    public abstract int LayerCount { get; }

    /// <summary>Width of what <see cref="Forward"/> gives.</summary>
    public virtual int Width => TokenEmbedding.Width;

    /// <summary>The last hidden state of every token: [n, width].</summary>
    public abstract Tensor Forward(ForwardBatch batch);
}

/// <summary>
/// A decoder under a language-modelling head. The field that holds the decoder is the one the checkpoint names; the others are
/// null.
/// </summary>
internal sealed class DecoderForCausalLM : CausalLanguageModel
{
    public readonly Decoder? model;
    public readonly Decoder? transformer;
    public readonly Decoder? gpt_neox;
    public readonly Linear? lm_head;
    public readonly Linear? embed_out;
    private readonly Decoder _decoder;
    private readonly Linear _head;
    private readonly string _headName;
    private readonly string _bodyName;
    private readonly string _lengthField;
    private readonly KeptScalar? _scale;
    private readonly double? _softCap;

    public DecoderForCausalLM(PretrainedConfig config, Decoder decoder, DecoderHead head)
        : base(config)
    {
        (_decoder, _bodyName) = (decoder, head.Body);
        switch (head.Body)
        {
            case nameof(model):
                model = decoder;
                break;
            case nameof(transformer):
                transformer = decoder;
                break;
            default:
                gpt_neox = decoder;
                break;
        }

        var isTied = config.Flag("tie_word_embeddings", head.TiedByDefault);
        _head = new Linear(decoder.Width, config.VocabSize, head.HasBias, isTied ? decoder.TokenEmbedding.weight : null);
        _headName = head.Body == nameof(gpt_neox) ? nameof(embed_out) : nameof(lm_head);
        (lm_head, embed_out) = head.Body == nameof(gpt_neox) ? (null, _head) : (_head, (Linear?)null);
        _lengthField = head.LengthField;
        ScoreScale = head.Scale;
        _scale = head.Scale == 1 ? null : new KeptScalar(head.Scale);
        _softCap = config.Has("final_logit_softcapping") ? config.Number("final_logit_softcapping", 0) : null;
    }

    internal Decoder Decoder => _decoder;

    internal Linear Head => _head;

    /// <summary>What the scores are multiplied by.</summary>
    internal double ScoreScale { get; }

    /// <summary>Scores s become c·tanh(s/c); null: they stay.</summary>
    internal double? ScoreCap => _softCap;

    public override int HiddenSize => _decoder.Width;

    public override int LayerCount => _decoder.LayerCount;

    public override int MaxLength => Config.Int(_lengthField, 2048);

    public override string OutputHead => _headName;

    protected override Tensor Through(ForwardBatch batch) => _decoder.Forward(batch);

    protected override Tensor Scores(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var logits = _head.Forward(hidden, batch); // [m, vocabulary]
        logits = _scale is null ? logits : logits.mul(_scale);
        if (_softCap is { } cap)
        {
            using var grow = cap.ToScalar();
            using var shrink = (1 / cap).ToScalar();
            logits = logits.mul(shrink).tanh().mul(grow);
        }

        return logits.MoveToOuterDisposeScope();
    }

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    protected override string BasePrefix => _bodyName;

    protected override string Rename(string name) => DecoderBuffers.Rename(name);
}

/// <summary>How a language-modelling head sits on its decoder.</summary>
internal sealed record DecoderHead(
    string Body = "model", bool TiedByDefault = false, bool HasBias = false, double Scale = 1, string LengthField = "max_position_embeddings");

/// <summary>Tensors that old checkpoints hold although config.json says all about them.</summary>
internal static class DecoderBuffers
{
    private static readonly string[] Endings =
        ["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias", "embeddings.position_ids"];

    /// <summary>Mixtral's experts once stood in a module of another name.</summary>
    public static string Rename(string name) => name.Replace(".block_sparse_moe.", ".mlp.", StringComparison.Ordinal);

    public static bool Are(string name) => Array.Exists(Endings, ending => name.EndsWith(ending, StringComparison.Ordinal));
}
