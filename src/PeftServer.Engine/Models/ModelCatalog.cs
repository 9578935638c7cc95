using PeftServer.Engine.Adapters;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>THE list of architectures: <c>model_type</c> of config.json to the class that computes it, for each head.</summary>
public static class ModelCatalog
{
    private static readonly Dictionary<string, Func<PretrainedConfig, ModelHead, PretrainedModel?>> Architectures = new()
    {
        ["llama"] = (c, head) => head is ModelHead.CausalLM && c.Text("hidden_act", "silu") == "silu" ? new LlamaForCausalLM(c) : LlamaLike(c, head, LlamaVariants.Llama(c)),
        ["mistral"] = (c, head) => LlamaLike(c, head, LlamaVariants.Mistral(c)),
        ["mixtral"] = (c, head) => LlamaLike(c, head, LlamaVariants.Mixtral(c)),
        ["qwen2"] = (c, head) => LlamaLike(c, head, LlamaVariants.Qwen2(c)),
        ["qwen3"] = (c, head) => LlamaLike(c, head, LlamaVariants.Qwen3(c)),
        ["qwen3_moe"] = (c, head) => LlamaLike(c, head, LlamaVariants.Qwen3Moe(c)),
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
        ["roberta"] = Roberta,
        ["electra"] = Electra,
        ["distilbert"] = DistilBert,
        ["deberta-v2"] = DebertaV2,
        ["modernbert"] = ModernBert,
        ["t5"] = T5,
        ["mt5"] = T5,
        ["bart"] = Bart,
    };

    public static IReadOnlyCollection<string> ModelTypes => Architectures.Keys;

    /// <summary>The head that a task needs; null where it needs none in particular.</summary>
    public static ModelHead? HeadFor(TaskType? task) => task switch
    {
        TaskType.CausalLm => ModelHead.CausalLM,
        TaskType.Seq2SeqLm => ModelHead.Seq2SeqLM,
        TaskType.SequenceClassification => ModelHead.SequenceClassification,
        TaskType.TokenClassification => ModelHead.TokenClassification,
        TaskType.QuestionAnswering => ModelHead.QuestionAnswering,
        TaskType.FeatureExtraction => ModelHead.Features,
        _ => null,
    };

    internal static PretrainedModel Create(PretrainedConfig config, ModelHead? wanted = null)
    {
        if (!Architectures.TryGetValue(config.ModelType, out var create))
        {
            throw new CheckpointException(
                $"config.json: model_type '{config.ModelType}' is not supported. Supported: {string.Join(", ", Architectures.Keys.Order(StringComparer.Ordinal))}.");
        }

        if ((wanted ?? HeadOf(config)) is { } head)
        {
            return create(config, head) ?? throw new CheckpointException($"config.json: model_type '{config.ModelType}' is not supported with the head {head}.");
        }

        return config.Architectures is [var name, ..]
            ? throw config.Unsupported("architectures", name)
            : Usual.Select(usual => create(config, usual)).OfType<PretrainedModel>().First();
    }

    /// <summary>The head that a model of <paramref name="config"/> has, by its name or as <see cref="Create"/> finds it; null where it has none of these.</summary>
    public static ModelHead? ServedHead(PretrainedConfig config) =>
        HeadOf(config) is { } named ? named
        : config.Architectures.Count > 0 || !Architectures.TryGetValue(config.ModelType, out var create) ? null
        : Usual.Cast<ModelHead?>().FirstOrDefault(usual => create(config, usual!.Value) is not null);

    /// <summary>The heads of a config that names none, in the order they are tried.</summary>
    private static readonly ModelHead[] Usual = [ModelHead.CausalLM, ModelHead.Seq2SeqLM, ModelHead.Features];

    /// <summary>The head that <c>architectures</c> names; null for one that is not known, and where none is named.</summary>
    internal static ModelHead? HeadOf(PretrainedConfig config) => config.Architectures switch
    {
        [var name, ..] when name.EndsWith("ForCausalLM", StringComparison.Ordinal) || name.EndsWith("LMHeadModel", StringComparison.Ordinal) => ModelHead.CausalLM,
        [var name, ..] when name.EndsWith("ForSequenceClassification", StringComparison.Ordinal) => ModelHead.SequenceClassification,
        [var name, ..] when name.EndsWith("ForTokenClassification", StringComparison.Ordinal) => ModelHead.TokenClassification,
        [var name, ..] when name.EndsWith("ForQuestionAnswering", StringComparison.Ordinal) => ModelHead.QuestionAnswering,
        [var name, ..] when name.EndsWith("ForMaskedLM", StringComparison.Ordinal) => ModelHead.MaskedLM,
        [var name, ..] when name.EndsWith("ForConditionalGeneration", StringComparison.Ordinal) => ModelHead.Seq2SeqLM,
        [var name, ..] when name.EndsWith("Model", StringComparison.Ordinal) => ModelHead.Features,
        _ => null,
    };

    private static PretrainedModel? LlamaLike(PretrainedConfig config, ModelHead head, LlamaVariant variant, DecoderHead? causal = null) =>
        WithHead(config, head, new LlamaVariantModel(config, variant), causal ?? new DecoderHead());

    private static PretrainedModel? Bert(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new BertForSequenceClassification(c, new BertModel(c, pools: true)),
        ModelHead.MaskedLM => new BertForMaskedLM(c, new BertModel(c, pools: false)),
        _ => OfTokens(c, head, pools => new BertModel(c, pools)),
    };

    private static PretrainedModel? Roberta(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new RobertaForSequenceClassification(c, new BertModel(c, pools: false)),
        ModelHead.MaskedLM => new RobertaForMaskedLM(c, new BertModel(c, pools: false)),
        _ => OfTokens(c, head, pools => new BertModel(c, pools)),
    };

    private static PretrainedModel? Electra(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new RobertaForSequenceClassification(c, new BertModel(c, pools: false)),
        ModelHead.MaskedLM => new ElectraForMaskedLM(c, new BertModel(c, pools: false)),
        _ => OfTokens(c, head, _ => new BertModel(c, pools: false)),
    };

    private static PretrainedModel? DistilBert(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new DistilBertForSequenceClassification(c, new DistilBertModel(c)),
        ModelHead.MaskedLM => new DistilBertForMaskedLM(c, new DistilBertModel(c)),
        _ => OfTokens(c, head, _ => new DistilBertModel(c)),
    };

    private static PretrainedModel? DebertaV2(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new DebertaV2ForSequenceClassification(c, new DebertaV2Model(c)),
        ModelHead.MaskedLM when c.Flag("legacy", true) => new BertForMaskedLM(c, new DebertaV2Model(c)),
        _ => OfTokens(c, head, _ => new DebertaV2Model(c)),
    };

    private static PretrainedModel? ModernBert(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => new ModernBertForClassification(c, new ModernBertModel(c), PredictionKind.Sequence),
        ModelHead.TokenClassification => new ModernBertForClassification(c, new ModernBertModel(c), PredictionKind.Token),
        ModelHead.QuestionAnswering => new ModernBertForClassification(c, new ModernBertModel(c), PredictionKind.Span),
        ModelHead.MaskedLM => new ModernBertForMaskedLM(c, new ModernBertModel(c)),
        ModelHead.Features => new EncoderFeatures(c, new ModernBertModel(c)),
        _ => null,
    };

    private static PretrainedModel? T5(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.Seq2SeqLM => new T5ForConditionalGeneration(c),
        ModelHead.SequenceClassification => new EncoderDecoderForClassification(c, new T5Body(c), "transformer", PredictionKind.Sequence),
        ModelHead.QuestionAnswering => new EncoderDecoderForClassification(c, new T5Body(c), "", PredictionKind.Span),
        ModelHead.TokenClassification => new T5ForTokenClassification(c),
        ModelHead.Features => new T5EncoderFeatures(c),
        _ => null,
    };

    private static PretrainedModel? Bart(PretrainedConfig c, ModelHead head) => head switch
    {
        ModelHead.Seq2SeqLM => new BartForConditionalGeneration(c),
        ModelHead.SequenceClassification => new EncoderDecoderForClassification(c, new BartModel(c), "model", PredictionKind.Sequence),
        ModelHead.QuestionAnswering => new EncoderDecoderForClassification(c, new BartModel(c), "model", PredictionKind.Span),
        ModelHead.Features => new EncoderDecoderForClassification(c, new BartModel(c), "", PredictionKind.Features),
        ModelHead.CausalLM when c.Flag("is_decoder", false) => new BartForCausalLM(c), // a whole one continues no text
        _ => null,
    };

    private static PretrainedModel? OfTokens(PretrainedConfig c, ModelHead head, Func<bool, Encoder> body) => head switch
    {
        ModelHead.TokenClassification => new EncoderForTokens(c, body(false), PredictionKind.Token),
        ModelHead.QuestionAnswering => new EncoderForTokens(c, body(false), PredictionKind.Span),
        ModelHead.Features => new EncoderFeatures(c, body(true)),
        _ => null,
    };

    /// <summary>The first relatives of Llama that answered questions named their body otherwise, and still do.</summary>
    private static string AnswersBody(PretrainedConfig config, string body) => config.ModelType is "llama" or "qwen2" or "qwen3" or "qwen3_moe" or "smollm3" ? "transformer" : body;

    private static PretrainedModel? WithHead(PretrainedConfig config, ModelHead head, Decoder decoder, DecoderHead causal)
    {
        _ = config.Has("final_logit_softcapping"); // of the language-modelling head alone, which reads it
        return OfDecoder(config, head, decoder, causal);
    }

    private static PretrainedModel? OfDecoder(PretrainedConfig config, ModelHead head, Decoder decoder, DecoderHead causal) => head switch
    {
        ModelHead.CausalLM => new DecoderForCausalLM(config, decoder, causal),
        ModelHead.SequenceClassification => new DecoderForClassification(config, decoder, causal.Body, PredictionKind.Sequence),
        ModelHead.TokenClassification => new DecoderForClassification(config, decoder, causal.Body, PredictionKind.Token),
        ModelHead.QuestionAnswering => new DecoderForClassification(config, decoder, AnswersBody(config, causal.Body), PredictionKind.Span),
        ModelHead.Features => new DecoderFeatures(config, decoder, causal.Body),
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
