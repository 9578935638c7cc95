using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>THE list of architectures: <c>model_type</c> of config.json to the class that computes it, for each head.</summary>
public static class ModelCatalog
{
    private static readonly Dictionary<string, Func<PretrainedConfig, ModelHead, PretrainedModel?>> Architectures = new()
    {
        ["llama"] = (c, head) => head is ModelHead.CausalLM ? new LlamaForCausalLM(c) : LlamaLike(c, head, LlamaVariants.Llama(c)),
        ["mistral"] = (c, head) => LlamaLike(c, head, LlamaVariants.Mistral(c)),
        ["qwen2"] = (c, head) => LlamaLike(c, head, LlamaVariants.Qwen2(c)),
        ["qwen3"] = (c, head) => LlamaLike(c, head, LlamaVariants.Qwen3(c)),
        ["granite"] = (c, head) => LlamaLike(c, head, LlamaVariants.Granite(c), new DecoderHead(Scale: 1 / c.Number("logits_scaling", 1))),
        ["smollm3"] = (c, head) => LlamaLike(c, head, LlamaVariants.SmolLm3(c), new DecoderHead(TiedByDefault: true)),
        ["olmo2"] = (c, head) => LlamaLike(c, head, LlamaVariants.Olmo2(c)),
        ["cohere"] = (c, head) => LlamaLike(c, head, LlamaVariants.Cohere(c), new DecoderHead(TiedByDefault: true, Scale: c.Number("logit_scale", 0.0625))),
        ["stablelm"] = (c, head) => LlamaLike(c, head, LlamaVariants.StableLm(c)),
        ["starcoder2"] = (c, head) => LlamaLike(c, head, LlamaVariants.StarCoder2(c), new DecoderHead(TiedByDefault: true)),
        ["phi"] = (c, head) => LlamaLike(c, head, LlamaVariants.Phi(c), new DecoderHead(HasBias: true)),
        ["phi3"] = (c, head) => LlamaLike(c, head, LlamaVariants.Phi3(c)),
        ["gemma"] = (c, head) => LlamaLike(c, head, LlamaVariants.Gemma(c), new DecoderHead(TiedByDefault: true)),
        ["gemma2"] = (c, head) => LlamaLike(c, head, LlamaVariants.Gemma2(c), new DecoderHead(TiedByDefault: true)),
        ["gemma3_text"] = (c, head) => LlamaLike(c, head, LlamaVariants.Gemma3(c), new DecoderHead(TiedByDefault: true)),
        ["gpt2"] = (c, head) => WithHead(c, head, new Gpt2Model(c), new DecoderHead("transformer", TiedByDefault: true, LengthField: "n_positions")),
        ["gptj"] = (c, head) => WithHead(c, head, new GptJModel(c), new DecoderHead("transformer", HasBias: true, LengthField: "n_positions")),
        ["gpt_neox"] = (c, head) => WithHead(c, head, new GptNeoXModel(c), new DecoderHead("gpt_neox")),
        ["opt"] = (c, head) => WithHead(c, head, new OptModel(c), new DecoderHead(TiedByDefault: true)),
        ["bloom"] = (c, head) => WithHead(c, head, new BloomModel(c), new DecoderHead("transformer", TiedByDefault: true, LengthField: "seq_length")),
        ["falcon"] = (c, head) => WithHead(c, head, new FalconModel(c), new DecoderHead("transformer", TiedByDefault: true)),
        ["bert"] = Bert,
        ["roberta"] = (c, head) => head is ModelHead.SequenceClassification ? new RobertaForSequenceClassification(c) : head is ModelHead.MaskedLM ? null : Bert(c, head),
        ["electra"] = (c, head) => head is ModelHead.SequenceClassification ? new RobertaForSequenceClassification(c) : head is ModelHead.MaskedLM ? null : Bert(c, head),
    };

    public static IReadOnlyCollection<string> ModelTypes => Architectures.Keys;

    /// <summary>The model of <paramref name="config"/>, under <paramref name="wanted"/> where that is given.</summary>
    internal static PretrainedModel Create(PretrainedConfig config, TaskHead? wanted = null)
    {
        if (!Architectures.TryGetValue(config.ModelType, out var create))
        {
            throw new CheckpointException(
                $"config.json: model_type '{config.ModelType}' is not supported. Supported: {string.Join(", ", Architectures.Keys.Order(StringComparer.Ordinal))}.");
        }

        if (wanted is not null)
        {
            return create(config.Under(wanted), wanted.Kind)
                ?? throw new CheckpointException($"config.json: model_type '{config.ModelType}' has no {wanted.Kind} head in this server.");
        }

        var head = HeadOf(config);
        return create(config, head) ?? throw config.Unsupported("architectures", string.Join(", ", config.Architectures));
    }

    /// <summary>The head that <c>architectures</c> names; a config that names none is a causal language model.</summary>
    private static ModelHead HeadOf(PretrainedConfig config) => config.Architectures switch
    {
        [] => ModelHead.CausalLM,
        [var name, ..] when name.EndsWith("ForCausalLM", StringComparison.Ordinal) || name.EndsWith("LMHeadModel", StringComparison.Ordinal) => ModelHead.CausalLM,
        [var name, ..] when name.EndsWith("ForSequenceClassification", StringComparison.Ordinal) => ModelHead.SequenceClassification,
        [var name, ..] when name.EndsWith("ForTokenClassification", StringComparison.Ordinal) => ModelHead.TokenClassification,
        [var name, ..] when name.EndsWith("ForQuestionAnswering", StringComparison.Ordinal) => ModelHead.QuestionAnswering,
        [var name, ..] when name.EndsWith("ForMaskedLM", StringComparison.Ordinal) => ModelHead.MaskedLM,
        [var name, ..] when name.EndsWith("ForConditionalGeneration", StringComparison.Ordinal) => ModelHead.Seq2SeqLM,
        [var name, ..] when name.EndsWith("Model", StringComparison.Ordinal) => ModelHead.Features,
        [var name, ..] => throw config.Unsupported("architectures", name),
    };

    private static PretrainedModel? LlamaLike(PretrainedConfig config, ModelHead head, LlamaVariant variant, DecoderHead? causal = null) =>
        WithHead(config, head, new LlamaVariantModel(config, variant), causal ?? new DecoderHead());

    private static PretrainedModel? Bert(PretrainedConfig config, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new BertForSequenceClassification(config),
        ModelHead.TokenClassification => new BertForTokens(config, PredictionKind.Token),
        ModelHead.QuestionAnswering => new BertForTokens(config, PredictionKind.Span),
        ModelHead.MaskedLM => new BertForMaskedLM(config),
        ModelHead.Features => new BertFeatures(config),
        _ => null,
    };

    private static PretrainedModel? WithHead(PretrainedConfig config, ModelHead head, Decoder decoder, DecoderHead causal) => head switch
    {
        ModelHead.CausalLM => new DecoderForCausalLM(config, decoder, causal),
        ModelHead.SequenceClassification when causal.Body is "model" or "transformer" => new DecoderForSequenceClassification(config, decoder, causal.Body),
        ModelHead.TokenClassification when causal.Body is "model" or "transformer" => new DecoderForTokenClassification(config, decoder, causal.Body),
        _ => null,
    };
}

/// <summary>What stands on top of a model.</summary>
public enum ModelHead
{
    CausalLM,
    MaskedLM,
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    Seq2SeqLM,
    Features,
}
